"""The codec of one annotation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import msgspec

from perdure.errors import BadArgument, NotEncodable, TooLarge
from perdure.model.annotation import Builder
from perdure.model.tagged import Leaf
from perdure.model.values import ENCODE, LONG, Arrays, encode, looked_at, refusal

Raw = msgspec.Raw
_NULL: Final = b"null"


class Shape:
    """Encodes values as compact JSON and reads them back in the types of an annotation (S8).

    Shape: `where` names the place in errors, as "result of task charge".
    Raises: `DefinitionError` at construction for an annotation that cannot be read back.
    """

    __slots__ = ("_back", "_nullable", "_to", "annotation", "arrays", "where")

    def __init__(self, annotation: Any, where: str) -> None:
        self.annotation = Any if annotation is inspect.Parameter.empty else annotation
        self.where = where
        node = Builder(where).build(self.annotation)
        self._to = None if isinstance(node, Leaf) else node.to
        self.arrays = node.arrays if isinstance(node, Leaf) else Arrays.ANYWHERE
        self._back = node.back
        self._nullable = self._reads_null()

    def _reads_null(self) -> bool:
        try:
            return self._back(_NULL) is None
        except Exception:  # noqa: BLE001 - a class's own check may raise anything
            return False

    def encode(self, value: Any, limit: int) -> bytes:
        """Shape: compact JSON, the same bytes in every process.

        Raises: `NotEncodable`, or `TooLarge` over `limit` bytes.
        """
        if value is None and self._nullable:
            return _NULL
        try:
            if self._to is not None:
                raw = encode(self._to(value))
            else:
                raw = ENCODE(value)
                if (self.arrays and (b"[" in raw or len(raw) >= LONG)) or b"null" in raw or type(value) is Raw:
                    raw = looked_at(value, raw, self.arrays)
        except Exception as error:  # noqa: BLE001 - whatever a value's own code raises, it cannot be encoded
            raise NotEncodable(f"{self.where}: {refusal(error)}") from None
        if len(raw) > limit:
            raise TooLarge(self.where, len(raw), limit)
        return raw

    @property
    def fast(self) -> Callable[[bytes], Any] | None:
        """What reads an encoding, where values are written as they are; None where a union is tagged."""
        return self._back if self._to is None else None

    def decode(self, raw: bytes | Raw) -> Any:
        """Raises: `BadArgument` naming the place and what is wrong."""
        try:
            return self._back(raw)
        except Exception as error:  # noqa: BLE001 - a class's own check may raise anything
            raise self._unread(error) from None

    def round(self, value: Any, limit: int) -> tuple[bytes, Any]:
        """The encoding, and the value as everybody will see it. Raises: as `encode` and `decode`."""
        raw = self.encode(value, limit)
        if raw is _NULL:
            return raw, None
        try:
            return raw, self._back(raw)
        except Exception as error:  # noqa: BLE001 - as in `decode`
            raise self._unread(error) from None

    def _unread(self, error: Exception) -> BadArgument:
        text = str(error) if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: {error}"
        return BadArgument(f"{self.where}: {text}")
