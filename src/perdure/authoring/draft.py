"""Drafts: the nodes of a graph while it is traced or built, before they are frozen into its definition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from perdure.authoring import condition as conditions
from perdure.authoring.argument import Arguments
from perdure.authoring.check import NAME
from perdure.authoring.options import options_of
from perdure.authoring.placeholder import Placeholder, Step, draft_of, origin_of, reference_of
from perdure.authoring.reference import held_by_module, same_code
from perdure.errors import DefinitionError
from perdure.model.graph import Argument, Condition, Join, Node, StepRef
from perdure.model.task import TaskSpec
from perdure.model.workflow import WorkflowSpec

Activity = TaskSpec | WorkflowSpec


class Draft:
    """A node that can still be changed. Shape: `fixed` once its name has been passed on."""

    __slots__ = ("after", "args", "drafts", "fixed", "join", "map", "name", "spec", "when")

    def __init__(self, drafts: Drafts, name: str, spec: Activity) -> None:
        self.drafts, self.name, self.spec = drafts, name, spec
        self.args: dict[str, Argument] = {}
        self.after: list[str | Draft] = []
        self.join: Join = "succeeded"
        self.map: str | None = None
        self.when: Callable[..., Any] | str | Condition | None = None
        self.fixed = False

    @property
    def where(self) -> str:
        return f"{self.drafts.where}, step {self.name}"

    def fix(self) -> None:
        self.fixed = True

    def rename(self, name: str) -> None:
        self.drafts.check_open(self.where)
        if self.fixed:
            raise DefinitionError(
                f"{self.where}: it is named {name!r} after it was passed on: say .named(...) at its call"
            )
        self.drafts.rename(self, name)

    def set_condition(self, when: Callable[..., Any] | str | Condition) -> None:
        self.drafts.check_open(self.where)
        if self.when is not None:
            raise DefinitionError(f"{self.where}: it has two conditions: put both into one")
        if not callable(when) and not isinstance(when, str | Condition):
            raise DefinitionError(f"{self.where}: when() takes a function of steps or CEL text, not {when!r}")
        self.when = when

    def add_after(self, steps: Iterable[Any], join: Join | None) -> None:
        self.drafts.check_open(self.where)
        for step in steps:
            if isinstance(step, list | tuple):
                self.add_after(step, None)
            elif isinstance(step, str):
                self.after.append(step)
            elif isinstance(step, StepRef):
                self.after.append(step.step)
            elif isinstance(step, Step):
                self.drafts.check_own(step, f"{self.where}, after")
                self.after.append(draft_of(step))
            elif isinstance(step, Placeholder) and isinstance(found := reference_of(step), StepRef):
                self.drafts.check_own(step, f"{self.where}, after")
                self.after.append(found.step)
            else:
                raise DefinitionError(f"{self.where}: after() takes steps, not {step!r}")
        if join is not None:
            self.join = join


class Frozen(NamedTuple):
    """What drafts become. Shape: `activities` and `conditions` by the node's name."""

    nodes: tuple[Node, ...]
    activities: dict[str, Activity]
    conditions: dict[str, conditions.Compiled]


class Drafts:
    """All drafts of one graph, by name, in the order of their calls."""

    def __init__(self, name: str) -> None:
        self.where = f"graph {name}"
        self.by_name: dict[str, Draft] = {}
        self.arguments = Arguments(self._resolve)
        self.closed = False
        self._counts: dict[str, int] = {}
        self._binders: dict[int, inspect.Signature] = {}

    # --- adding --------------------------------------------------------------------------------------

    def add(self, spec: Activity, name: str | None = None) -> Draft:
        """A new draft, named after its task unless named: `load`, then `load_2`."""
        self.check_open(f"{self.where}, step {name or spec.name}")
        if name is None:
            name = self._free(spec.name)
        elif name in self.by_name:
            raise DefinitionError(f"{self.where}: two steps are named {name!r}: give one of them another name")
        draft = self.by_name[self._checked(name)] = Draft(self, name, spec)
        return draft

    def _free(self, stem: str) -> str:
        """The first of stem, stem_2, stem_3, ... that is free."""
        count = self._counts.get(stem, 0) + 1
        while (name := stem if count == 1 else f"{stem}_{count}") in self.by_name:
            count += 1
        self._counts[stem] = count
        return name

    def rename(self, draft: Draft, name: str) -> None:
        if name in self.by_name and self.by_name[name] is not draft:
            raise DefinitionError(f"{self.where}: two steps are named {name!r}: give one of them another name")
        self._checked(name)
        last = next(reversed(self.by_name.values())) is draft
        if last:
            del self.by_name[draft.name]
            self._counts[draft.spec.name] = self._counts.get(draft.spec.name, 1) - 1
            draft.name = name
            self.by_name[name] = draft
        else:
            self.by_name = {name if one is draft else key: one for key, one in self.by_name.items()}
            draft.name = name

    def _checked(self, name: str) -> str:
        if not NAME.fullmatch(str(name)):
            raise DefinitionError(
                f"{self.where}: step {name!r}: a name is 1 to 255 letters, digits, '_', '-', '.', '+' and '#'"
            )
        return name

    def check_open(self, where: str) -> None:
        if self.closed:
            raise DefinitionError(f"{where}: the graph has been defined already, and does not change any more")

    # --- arguments -------------------------------------------------------------------------------------

    def bind(self, draft: Draft, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, fan: bool = False) -> None:
        """Give the draft its arguments by the names of its task's parameters; `fan` maps over the first.

        Raises: `DefinitionError` for a wrong or missing parameter.
        """
        spec = draft.spec
        binder = self._binder(spec)
        try:
            given = binder.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise DefinitionError(f"{draft.where}: {error}; {spec.name} takes {spec.signature.describe()}") from None
        if fan:
            draft.map = next(iter(binder.parameters)) if args else next(iter(kwargs), None)
            if draft.map is None or binder.parameters[draft.map].kind is inspect.Parameter.VAR_POSITIONAL:
                raise DefinitionError(f"{draft.where}: map() takes the list to fan out over as its first argument")
        for name, value in given.items():
            self.set_argument(draft, name, value)

    def set_argument(self, draft: Draft, name: str, value: Any) -> None:
        """Raises: `DefinitionError` for an unknown parameter, and a literal that does not fit it."""
        signature, where = draft.spec.signature, f"{draft.where}, argument {name}"
        if name not in signature.names:
            raise DefinitionError(
                f"{where}: there is no such parameter; {draft.spec.name} takes {signature.describe()}"
            )
        shape = signature.shapes[signature.names.index(name)]
        draft.args[name] = self.arguments.of(value, where, shape, fan=name == draft.map)

    def _binder(self, spec: Activity) -> inspect.Signature:
        found = self._binders.get(id(spec.signature))
        if found is None:
            found = inspect.Signature([p.replace(annotation=p.empty) for p in spec.signature.parameters])
            self._binders[id(spec.signature)] = found
        return found

    def _resolve(self, placeholder: Placeholder, where: str) -> Argument:
        self.check_own(placeholder, where)
        if isinstance(placeholder, Step):
            draft_of(placeholder).fix()
        return reference_of(placeholder)

    def check_own(self, placeholder: Placeholder, where: str) -> None:
        if origin_of(placeholder) is not self:
            raise DefinitionError(f"{where}: {placeholder!r} belongs to another graph: pass it in as an argument")

    # --- freezing ----------------------------------------------------------------------------------------

    def freeze(self, parameters: Iterable[str], graph: str) -> Frozen:
        """The nodes as data. Raises: `DefinitionError` for a condition that is not well formed."""
        self.closed = True
        known = {*self.by_name, *parameters}
        bases = self._bases()
        shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        found = Frozen((), {}, {})
        nodes = []
        for name, draft in self.by_name.items():
            when = self._condition(draft, known, f"{graph}#{name}", found.conditions)
            after = tuple(dict.fromkeys([one if isinstance(one, str) else one.name for one in draft.after]))
            spec = draft.spec
            child = isinstance(spec, WorkflowSpec)
            options = options_of(spec, bases[spec.name]) if isinstance(spec, TaskSpec) else {}
            nodes.append(
                Node(
                    name,
                    spec.name,
                    draft.args,
                    shared.setdefault(after, after),
                    draft.join,
                    when,
                    draft.map,
                    child,
                    options,
                )
            )
            found.activities[name] = spec
        return found._replace(nodes=tuple(nodes))

    def _bases(self) -> dict[str, Any]:
        """Each task without the options of single steps, by name: as its module holds it, else as it is used first."""
        bases: dict[str, Any] = {}
        for draft in self.by_name.values():
            spec = draft.spec
            base = bases.get(spec.name)
            if base is None:
                held = None
                if isinstance(spec, TaskSpec):
                    held = held_by_module(spec.fn.__module__, getattr(spec.fn, "__name__", spec.name), same_code(spec))
                bases[spec.name] = held[1] if held else spec
            elif not _same(base, spec):
                kinds = " and ".join("workflow" if isinstance(one, WorkflowSpec) else "task" for one in (base, spec))
                raise DefinitionError(
                    f"{draft.where}: {kinds} are both named {spec.name!r}: give one of them another name="
                )
        return bases

    def _condition(
        self, draft: Draft, known: set[str], place: str, compiled: dict[str, conditions.Compiled]
    ) -> Condition | None:
        when = draft.when
        if when is None:
            return None
        if isinstance(when, Condition):
            found = when
            if when.cel is not None:
                compiled[draft.name] = conditions.compiled(when, draft.where)
        elif isinstance(when, str):
            found = conditions.from_text(when, known, draft.where)
            compiled[draft.name] = conditions.compiled(found, draft.where)
        else:
            reference = f"{getattr(when, '__module__', '')}:{place}"
            found, compiled[draft.name] = conditions.from_function(when, known, reference, draft.where)
        return found


def _same(base: Activity, spec: Activity) -> bool:
    if isinstance(base, TaskSpec) and isinstance(spec, TaskSpec):
        return base.fn is spec.fn
    return base is spec
