"""The codec of one annotation."""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec

from perdure.errors import BadArgument, NotEncodable, TooLarge
from perdure.model.tagged import Builder, Leaf
from perdure.model.values import ENCODE, encode, looked_at, refusal

Raw = msgspec.Raw
_NULL: Final = b"null"


class Shape:
    """Encodes values as compact JSON and reads them back in the types of an annotation (S8).

    Shape: `where` names the place in errors, as "result of task charge".
    Raises: `DefinitionError` at construction for an annotation that cannot be read back.
    """

    __slots__ = ("_back", "_nullable", "_to", "annotation", "where")

    def __init__(self, annotation: Any, where: str) -> None:
        self.annotation = Any if annotation is inspect.Parameter.empty else annotation
        self.where = where
        node = Builder(where).build(self.annotation)
        self._to = None if isinstance(node, Leaf) else node.to
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
                if b"null" in raw or b"[" in raw or len(raw) >= 400 or type(value) is Raw:
                    raw = looked_at(value, raw)
        except Exception as error:  # noqa: BLE001 - whatever a value's own code raises, it cannot be encoded
            raise NotEncodable(f"{self.where}: {refusal(error)}") from None
        if len(raw) > limit:
            raise TooLarge(self.where, len(raw), limit)
        return raw

    def decode(self, raw: bytes | Raw) -> Any:
        """Raises: `BadArgument` naming the place and what is wrong."""
        try:
            return self._back(raw)
        except Exception as error:  # noqa: BLE001 - a class's own check may raise anything
            raise BadArgument(f"{self.where}: {_said(error)}") from None

    def round(self, value: Any, limit: int) -> tuple[bytes, Any]:
        """The encoding, and the value as everybody will see it. Raises: as `encode` and `decode`."""
        raw = self.encode(value, limit)
        return raw, None if raw == _NULL and self._nullable else self.decode(raw)


def _said(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: {text}"
