"""Flow code that reads the wall clock, chance, threads or sockets is refused, with the durable twin named.

Only the flow's own function is touched: where its code mentions one of the guarded modules, or imports one, it is
given a view of its globals in which those are replaced. No other code in the process sees a difference.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, ModuleType
from typing import Any

from perdure.authoring.ambient import current
from perdure.errors import NotDurable

_CLOCK, _CHANCE, _WORK = "perdure.now()", "perdure.random()", "a @task"
# module -> (names refused: None means all that can be called, what to use instead)
_REFUSED: dict[str, tuple[frozenset[str] | None, str]] = {
    "time": (
        frozenset(
            {
                "time",
                "time_ns",
                "monotonic",
                "monotonic_ns",
                "perf_counter",
                "perf_counter_ns",
                "localtime",
                "gmtime",
                "ctime",
            }
        ),
        _CLOCK,
    ),
    "random": (None, _CHANCE),
    "secrets": (None, "perdure.random() or perdure.uuid(), or a @task for real secrets"),
    "threading": (None, _WORK),
    "multiprocessing": (None, _WORK),
    "concurrent.futures": (None, _WORK),
    "subprocess": (None, _WORK),
    "socket": (None, _WORK),
    "urllib.request": (None, _WORK),
    "http.client": (None, _WORK),
    "uuid": (frozenset({"uuid1", "uuid4"}), "perdure.uuid()"),
    "os": (frozenset({"urandom", "getrandom", "getpid", "fork", "system", "popen", "environ", "getenv"}), _WORK),
}
_TWINS = {
    "time.sleep": "await asyncio.sleep(...)",
    "os.environ": "an argument of the workflow",
    "os.getenv": "an argument of the workflow",
}
_DATETIME = frozenset({"now", "utcnow", "today"})
_IMPORTS = _REFUSED.keys() | {"datetime"}


def guarded(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, or a twin of it whose globals refuse what a replay could not repeat."""
    if not isinstance(fn, FunctionType) or not _mentions(fn):
        return fn
    twin = FunctionType(fn.__code__, _Globals(fn.__globals__), fn.__name__, fn.__defaults__, fn.__closure__)
    twin.__kwdefaults__ = fn.__kwdefaults__
    twin.__annotations__ = fn.__annotations__
    twin.__qualname__, twin.__module__, twin.__doc__ = fn.__qualname__, fn.__module__, fn.__doc__
    return twin


def _mentions(fn: FunctionType) -> bool:
    """Whether its code names something guarded, be it by an import of its own; names not defined yet are not guarded."""
    return any(
        _view(fn.__globals__[name]) is not fn.__globals__[name] if name in fn.__globals__ else name in _IMPORTS
        for name in names_of(fn.__code__)
    )


def _import(*args: Any, **kwargs: Any) -> Any:
    """What an import within a flow gives: the module, or its guard."""
    return _view(builtins.__import__(*args, **kwargs))


def names_of(code: CodeType) -> Iterable[str]:
    """The globals and attributes that code names, that of inner functions too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_of(constant)


class _Globals(dict[str, Any]):
    """The module's globals, live, with guarded values in place of the real ones."""

    def __init__(self, real: dict[str, Any]) -> None:
        found = real.get("__builtins__", builtins)
        plain = vars(found) if isinstance(found, ModuleType) else found
        super().__init__(__builtins__={**plain, "__import__": _import}, __name__=real.get("__name__", ""))
        self._real = real

    def __getitem__(self, name: str) -> Any:
        return _view(self._real[name])

    def __setitem__(self, name: str, value: Any) -> None:
        self._real[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self._real

    def get(self, name: str, default: Any = None) -> Any:
        return _view(self._real[name]) if name in self._real else default


def _view(value: Any) -> Any:
    """What a flow sees of a global: itself, or its guard."""
    if isinstance(value, ModuleType):
        return _Module(value) if value.__name__ in _REFUSED or value.__name__ == "datetime" else value
    datetimes = sys.modules.get("datetime")
    if datetimes is not None and (value is datetimes.datetime or value is datetimes.date):
        return _dates(value)
    home = getattr(value, "__module__", None) or getattr(type(getattr(value, "__self__", None)), "__module__", None)
    if isinstance(home, str) and home in _REFUSED and callable(value):
        name = getattr(value, "__name__", "")
        return _refusal(home, name, value)
    return value


def _refusal(module: str, name: str, value: Any) -> Any:
    names, instead = _REFUSED[module]
    label = f"{module}.{name}"
    if label in _TWINS:
        instead = _TWINS[label]
    elif (names is not None and name not in names) or (isinstance(value, type) and issubclass(value, BaseException)):
        return value
    if not callable(value):
        if names is None or current.get() is None:
            return value
        raise NotDurable(label, instead)

    def refused(*args: Any, **kwargs: Any) -> Any:
        if current.get() is None:
            return value(*args, **kwargs)
        raise NotDurable(f"{label}()", instead)

    return refused


class _Module:
    """A module in which what a replay could not repeat is refused."""

    def __init__(self, module: ModuleType) -> None:
        self.__module = module

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__module, name)
        if self.__module.__name__ == "datetime":
            return _view(value)
        return _refusal(self.__module.__name__, name, value)


class _Dates(type):
    """Makes a stand-in for datetime or date that differs only in reading the clock."""

    real: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.real)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.real(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name in _DATETIME and current.get() is not None:
            raise NotDurable(f"{cls.real.__name__}.{name}()", _CLOCK)
        return getattr(cls.real, name)


_stand_ins: dict[type, Any] = {}


def _dates(real: type) -> Any:
    if real not in _stand_ins:
        _stand_ins[real] = _Dates(real.__name__, (), {"real": real})
    return _stand_ins[real]
