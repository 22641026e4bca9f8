"""What a flow holds beside its steps: its variables, and the token of a signal it sent."""

from __future__ import annotations

from collections.abc import Generator, Iterator, MutableMapping
from typing import Any

from perdure.model.payload import Shape
from perdure.model.text import check_text

_VARIABLE = Shape(Any, "variable")


class Variables(MutableMapping[str, Any]):
    """A flow's variables, kept as decoded JSON values; writes are ignored once the flow has left memory.

    Shape: `closed` then. Units: `limit` bytes of one value.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self.values: dict[str, Any] = {}  # type: ignore[assignment]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        check_text(key, "variable's name")
        if not self.closed:
            self.values[key] = _VARIABLE.round(value, self.limit)[1]

    def __delitem__(self, key: str) -> None:
        if not self.closed:
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
