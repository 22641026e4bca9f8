"""The parameters of a task's or workflow's function: calls packed as JSON and unpacked again."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

import msgspec

from perdure.errors import BadArgument, DefinitionError, NotEncodable, PerdureError
from perdure.model.shape import Shape
from perdure.model.values import ENCODE, LONG, Arrays, looked_at

_KINDS = inspect.Parameter
_NOTHING: Final[tuple[bytes, tuple[Any, ...]]] = (b"[]", ())
_UNSET: Final = inspect.Parameter.empty


class Signature:
    """What a function takes and gives.

    Shape: `names` all parameters in order, `required` those without a default; `result` the annotation of the
           result. A call is packed as one JSON array of all parameters in order: `*args` is one list, `**kwargs`
           one object.
    """

    def __init__(self, where: str, parameters: tuple[inspect.Parameter, ...], result: Any) -> None:
        self.where, self.result = where, result
        self.parameters = parameters
        self.names = tuple(p.name for p in parameters)
        self.required = tuple(p.name for p in parameters if p.default is _UNSET and p.kind not in _MANY)
        self.shapes = tuple(Shape(_packed_type(p), f"parameter {p.name!r} of {where}") for p in parameters)
        self._whole = Shape(_TUPLE[tuple(s.annotation for s in self.shapes)], where)
        self._read = self._whole.fast
        # The array of all parameters is always in order: what counts is what stands in it.
        most = max((shape.arrays for shape in self.shapes), default=Arrays.NOWHERE)
        self._arrays = Arrays.IN_EACH if most is Arrays.AT_TOP else most
        self._defaults = [p.default for p in parameters]
        self._plain = all(p.kind not in _MANY for p in parameters)
        self._positional = sum(p.kind in _BY_PLACE for p in parameters)
        self._direct = len(parameters) if self._positional == len(parameters) else -1
        self._index = {p.name: i for i, p in enumerate(parameters) if p.kind in _BY_NAME}
        self._binder = inspect.Signature([p.replace(annotation=_UNSET) for p in parameters])
        for shape, parameter in zip(self.shapes, parameters, strict=True):
            _check_default(shape, parameter)

    @classmethod
    def of(cls, fn: Callable[..., Any], where: str) -> Signature:
        """Raises: `DefinitionError` naming a parameter that cannot be kept, or a name that cannot be found."""
        try:
            signature = inspect.signature(fn)
        except (TypeError, ValueError) as error:
            raise DefinitionError(f"{where}: its parameters cannot be read: {error}") from None
        hints = _hints(fn, where)
        parameters = tuple(p.replace(annotation=hints.get(p.name, Any)) for p in signature.parameters.values())
        return cls(where, parameters, hints.get("return", Any))

    # --- a call as JSON, and back ------------------------------------------------------------------

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> tuple[bytes, tuple[Any, ...]]:
        """The encoding of a call, and its values as the function will see them.

        Raises: `BadArgument` naming the function, the parameter and what was expected; `NotEncodable`; `TooLarge`.
        """
        if kwargs or len(args) != self._direct:
            args = self._bound(args, kwargs)
        if not args:
            return _NOTHING
        try:
            if self._read is not None:  # the common case, without a call more than it needs
                raw = ENCODE(args)
                if b"null" in raw or (self._arrays and (len(raw) >= LONG or raw.find(b"[", 1) > 0)):
                    raw = looked_at(args, raw, self._arrays)
                if len(raw) <= limit:
                    return raw, self._read(raw)
        except Exception:  # noqa: BLE001, S110 - said below, with the parameter that is at fault
            pass
        try:
            return self._whole.round(args, limit)
        except PerdureError as error:
            raise self._blamed(args, limit, error) from None

    def unpack(self, raw: bytes | msgspec.Raw) -> tuple[Any, ...]:
        """The values again, as fresh objects. Raises: `BadArgument`."""
        values: tuple[Any, ...] = self._whole.decode(raw)
        return values

    def call(self, fn: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        """Call the function with what `pack` or `unpack` gave."""
        if self._direct >= 0:
            return fn(*values)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self.parameters, values, strict=True):
            if parameter.kind in _BY_PLACE:
                args.append(value)
            elif parameter.kind is _KINDS.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is _KINDS.VAR_KEYWORD:
                kwargs.update(value)
            else:
                kwargs[parameter.name] = value
        return fn(*args, **kwargs)

    def from_names(self, given: Mapping[str, Any], limit: int) -> bytes:
        """The encoding of a call that is given as an object: parameters by name, values as JSON or Python has them.

        Raises: `BadArgument` listing the expected names; `NotEncodable`; `TooLarge`.
        """
        rest = {name: value for name, value in given.items() if name not in self.names}
        more = self.parameters[-1] if self.parameters and self.parameters[-1].kind is _KINDS.VAR_KEYWORD else None
        if rest and more is None:
            raise self._misnamed(f"no parameter {next(iter(rest))!r}")
        missing = [name for name in self.required if name not in given]
        if missing:
            raise self._misnamed(f"no value for {missing[0]!r}")
        values = []
        for parameter, shape in zip(self.parameters, self.shapes, strict=True):
            value = given.get(parameter.name, _absent(parameter))
            if parameter is more:
                value = {**value, **rest}
            values.append(shape.round(value, limit)[1])
        if not values:
            return _NOTHING[0]
        return self._whole.encode(tuple(values), limit)

    def describe(self) -> str:
        """As "(order: Order, day: str = 'x')"."""
        shown, star = [], False
        for parameter in self.parameters:
            if parameter.kind is _KINDS.KEYWORD_ONLY and not star:
                shown.append("*")
            star = star or parameter.kind in {_KINDS.VAR_POSITIONAL, _KINDS.KEYWORD_ONLY}
            shown.append(_shown(parameter))
            if parameter.kind is _KINDS.POSITIONAL_ONLY and self._last_by_place_only(parameter):
                shown.append("/")
        return f"({', '.join(shown)})"

    def _last_by_place_only(self, parameter: inspect.Parameter) -> bool:
        return [p for p in self.parameters if p.kind is _KINDS.POSITIONAL_ONLY][-1] is parameter

    # --- binding -------------------------------------------------------------------------------------

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All parameters in order, defaults filled in."""
        count = len(args)
        if not self._plain or count > self._positional:
            return self._bound_slowly(args, kwargs)
        values = [*args, *self._defaults[count:]]
        for name, value in kwargs.items():
            place = self._index.get(name, -1)
            if place < count:
                return self._bound_slowly(args, kwargs)
            values[place] = value
        if any(value is _UNSET for value in values):
            return self._bound_slowly(args, kwargs)
        return tuple(values)

    def _bound_slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = self._binder.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArgument(f"{self.where}: {error}; it takes {self.describe()}") from None
        bound.apply_defaults()
        return tuple(
            list(v) if isinstance(v, tuple) and p.kind is _KINDS.VAR_POSITIONAL else v
            for p, v in zip(self.parameters, bound.arguments.values(), strict=True)
        )

    def _blamed(self, values: tuple[Any, ...], limit: int, error: PerdureError) -> PerdureError:
        """The same error, naming the parameter that is at fault where one alone is."""
        for shape, value in zip(self.shapes, values, strict=True):
            try:
                shape.round(value, limit)
            except (BadArgument, NotEncodable) as own:
                return own
            except PerdureError:
                return error
        return error

    def _misnamed(self, what: str) -> BadArgument:
        expected = ", ".join(self.names) if self.names else "none"
        return BadArgument(f"{self.where}: {what}; its parameters are: {expected}")


_MANY: Final = frozenset({_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD})
_BY_PLACE: Final = frozenset({_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD})
_BY_NAME: Final = frozenset({_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY})


# As values, not as annotations.
_LIST: Final[Any] = list
_DICT: Final[Any] = dict
_TUPLE: Final[Any] = tuple


def _packed_type(parameter: inspect.Parameter) -> Any:
    one = parameter.annotation
    if parameter.kind is _KINDS.VAR_POSITIONAL:
        return _LIST[one]
    if parameter.kind is _KINDS.VAR_KEYWORD:
        unpacked = typing.get_origin(one) is typing.Unpack
        return typing.get_args(one)[0] if unpacked else _DICT[str, one]
    return one


def _absent(parameter: inspect.Parameter) -> Any:
    if parameter.kind in _MANY:
        return [] if parameter.kind is _KINDS.VAR_POSITIONAL else {}
    return parameter.default


def _check_default(shape: Shape, parameter: inspect.Parameter) -> None:
    if parameter.default is _UNSET:
        return
    try:
        shape.round(parameter.default, sys.maxsize)
    except PerdureError as error:
        hint = " (write `... | None`)" if parameter.default is None else ""
        raise DefinitionError(f"the default {parameter.default!r} does not fit{hint}: {error}") from None


def _shown(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.kind in _MANY:
        text = f"*{text}" if parameter.kind is _KINDS.VAR_POSITIONAL else f"**{text}"
    if parameter.annotation is not Any:
        text += f": {inspect.formatannotation(parameter.annotation, '').replace('typing.', '')}"
    if parameter.default is _UNSET:
        return text
    return f"{text} = {parameter.default!r}" if parameter.annotation is not Any else f"{text}={parameter.default!r}"


# --- annotations -------------------------------------------------------------------------------------


def _hints(fn: Callable[..., Any], where: str) -> dict[str, Any]:
    """The annotations of a function, resolved."""
    target = fn.func if isinstance(fn, functools.partial) else fn
    if not hasattr(target, "__annotations__") or isinstance(target, type):
        target = getattr(target, "__init__") if isinstance(target, type) else type(target).__call__  # noqa: B009
    try:
        return typing.get_type_hints(target, localns=_locals(target), include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{where}: the name {error.name!r} in its annotations cannot be found: import it beside the function"
        ) from None
    except Exception as error:  # noqa: BLE001 - an annotation is code, and may raise anything
        raise DefinitionError(f"{where}: its annotations cannot be read: {error}") from None


def _locals(fn: Any) -> dict[str, Any] | None:
    """Names of the functions within which this one is being defined; None where all annotations are values."""
    if not any(isinstance(one, str) for one in getattr(fn, "__annotations__", {}).values()):
        return None
    inner = inspect.unwrap(fn)
    path, module = getattr(inner, "__qualname__", ""), getattr(inner, "__globals__", None)
    names: dict[str, Any] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is module and path.startswith(f"{frame.f_code.co_qualname}."):
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    code, cells = getattr(inner, "__code__", None), getattr(inner, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    return names
