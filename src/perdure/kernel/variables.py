"""What a flow holds beside its steps: its variables, and the token of a signal it sent."""

from __future__ import annotations

from collections.abc import Generator, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from perdure.errors import BadArgument
from perdure.model.payload import Shape

if TYPE_CHECKING:
    from perdure.kernel.flow import Flow

_VARIABLE = Shape(Any, "variable")


class Variables(MutableMapping[str, Any]):
    """A flow's variables, kept as decoded JSON values; writes are ignored once the flow has left memory."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.values: dict[str, Any] = {}  # type: ignore[assignment]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise BadArgument(f"variables[{key!r}]: a name is text")
        if not self._flow.dropped:
            self.values[key] = _VARIABLE.round(value, self._flow.limits.payload)[1]

    def __delitem__(self, key: str) -> None:
        if not self._flow.dropped:
            del self.values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)


class Sent:
    """What `signal_run` returns: it was sent with this turn; awaiting it is allowed."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield
