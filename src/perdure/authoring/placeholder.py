"""Placeholders: what stands for a parameter or a step's result while a graph is traced.

A placeholder can be passed on, and followed by attribute or item; everything that would need its value now
is refused with an error that shows the way (S29): an f-string over one would embed nonsense in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from perdure.errors import DefinitionError
from perdure.model.graph import InputRef, Join, StepRef, say_reference

if TYPE_CHECKING:
    from perdure.authoring.draft import Draft

_TEXT: Final = "build the text inside a task, which is given the value"
_WHETHER: Final = "put the condition on the step that depends on it: step.when(lambda {name}: ...)"
_ITEMS: Final = "fan out with task.map({said}), or take single items: {said}[0]"
_COUNT: Final = "compute it inside a task, which is given the value"
_WAIT: Final = "a graph is traced and not run, so nothing is awaited in it: pass {said} to the next task"
_KEEP: Final = "a result is never changed: make a new one inside a task"


class Placeholder:
    """A value that is not there yet.

    Shape: `_reference` says where it will come from, `_origin` whose graph it belongs to.
    """

    __slots__ = ("_origin", "_paths", "_reference")

    def __init__(self, reference: StepRef | InputRef, origin: object) -> None:
        object.__setattr__(self, "_reference", reference)
        object.__setattr__(self, "_origin", origin)
        object.__setattr__(self, "_paths", {})

    def __getattr__(self, name: str) -> Placeholder:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}: take a field of that name with [{name!r}]")
        return follow(self, name)

    def __getitem__(self, part: Any) -> Placeholder:
        if isinstance(part, bool) or not isinstance(part, str | int):
            kind = "a slice" if isinstance(part, slice) else repr(part)
            raise DefinitionError(
                f"{kind} of {self!r}: one item by its name or number can be taken; for more, use a task"
            )
        return follow(self, part)

    def __repr__(self) -> str:
        reference = reference_of(self)
        if isinstance(reference, StepRef):
            return f"<result of step {say_reference(reference)}>"
        return f"<parameter {say_reference(reference)[1:]}>"

    __hash__ = object.__hash__


class Step(Placeholder):
    """The result of a step that was called while a graph is traced, with what can be said of the step itself."""

    __slots__ = ("_draft",)

    def __init__(self, draft: Draft, origin: object) -> None:
        super().__init__(StepRef(draft.name), origin)
        object.__setattr__(self, "_draft", draft)

    def when(self, condition: Callable[..., Any] | str) -> Step:
        """Run the step only if this holds of the results of the steps that it names; else it is skipped.

        Shape: a function whose parameters are names of steps or parameters of the graph, or CEL text.
        """
        draft_of(self).set_condition(condition)
        return self

    def after(self, *steps: Any, join: Join = "succeeded") -> Step:
        """Run the step after these, though it takes no data from them.

        Shape: `join` over all that the step depends on: "succeeded", "done", "any", or how many must have succeeded.
        """
        draft_of(self).add_after(steps, join)
        return self

    def named(self, name: str) -> Step:
        """Give the step another name than its task's; before it is passed on."""
        draft_of(self).rename(name)
        object.__setattr__(self, "_reference", StepRef(name))
        return self

    __hash__ = object.__hash__


def follow(placeholder: Placeholder, part: str | int) -> Placeholder:
    """The placeholder of a field or item inside this one's value; the same for the same part."""
    paths: dict[Any, Placeholder] = object.__getattribute__(placeholder, "_paths")
    found = paths.get(part)
    if found is None:
        reference = reference_of(placeholder)
        path = (*reference.path, part)
        deeper = StepRef(reference.step, path) if isinstance(reference, StepRef) else InputRef(reference.name, path)
        if isinstance(placeholder, Step):
            draft_of(placeholder).fix()
        found = paths[part] = Placeholder(deeper, origin_of(placeholder))
    return found


def reference_of(placeholder: Placeholder) -> StepRef | InputRef:
    """Where its value will come from."""
    found: StepRef | InputRef = object.__getattribute__(placeholder, "_reference")
    return found


def origin_of(placeholder: Placeholder) -> object:
    """The tracer that made it."""
    found: object = object.__getattribute__(placeholder, "_origin")
    return found


def draft_of(step: Step) -> Draft:
    """The node that the step will be."""
    found: Draft = object.__getattribute__(step, "_draft")
    return found


def _refusal(what: str, way: str) -> Callable[..., NoReturn]:
    def refused(self: Placeholder, *_args: Any, **_kwargs: Any) -> NoReturn:
        reference = reference_of(self)
        name = reference.step if isinstance(reference, StepRef) else reference.name
        shown = say_reference(reference).removeprefix("$")
        raise DefinitionError(
            f"{what} of {self!r}: its value is not known while the graph is traced; {way.format(name=name, said=shown)}"
        )

    return refused


def _refuse_all() -> None:
    """Give both classes a refusal for each special method that would need the value."""
    ways = {
        _TEXT: {"__str__": "str()", "__format__": "formatting", "__bytes__": "bytes()", "__fspath__": "a file path"},
        _WHETHER: {
            "__bool__": "bool(), if, and, or, not", "__eq__": "==", "__ne__": "!=", "__lt__": "<", "__le__": "<=",
            "__gt__": ">", "__ge__": ">=", "__contains__": "`in`",
        },
        _ITEMS: {"__iter__": "iterating or unpacking", "__reversed__": "reversed()", "__next__": "next()"},
        _COUNT: {"__len__": "len()", "__int__": "int()", "__float__": "float()", "__complex__": "complex()",
                 "__index__": "use as a number", "__round__": "round()", "__trunc__": "trunc()", "__floor__": "floor()",
                 "__ceil__": "ceil()", "__abs__": "abs()", "__neg__": "-", "__pos__": "+", "__invert__": "~",
                 "__call__": "a call", "__divmod__": "divmod()", "__rdivmod__": "divmod()"},
        _WAIT: {"__await__": "await", "__aiter__": "async for", "__enter__": "with", "__exit__": "with",
                "__aenter__": "async with", "__aexit__": "async with"},
        _KEEP: {"__setattr__": "setting an attribute", "__setitem__": "setting an item",
                "__delattr__": "deleting an attribute", "__delitem__": "deleting an item"},
    }  # fmt: skip
    for name, sign in {
        "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@",
        "and": "&", "or": "|", "xor": "^", "lshift": "<<", "rshift": ">>",
    }.items():  # fmt: skip
        for prefix in ("", "r", "i"):
            ways[_COUNT][f"__{prefix}{name}__"] = sign
    for way, methods in ways.items():
        for method, what in methods.items():
            setattr(Placeholder, method, _refusal(what, way))


_refuse_all()
