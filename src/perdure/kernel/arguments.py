"""A node's arguments from the results of others: raw JSON is spliced, decoded only where a path is taken."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import BadArgument
from perdure.model.graph import Argument, Fields, InputRef, Many, StepRef, Value

NULL = b"null"


class Values:
    """Where arguments are read from.

    Shape: `results` by node index (None: skipped or failed), `inputs` by parameter.
    """

    __slots__ = ("index", "inputs", "results")

    def __init__(self, index: dict[str, int], results: list[bytes | None], inputs: dict[str, bytes]) -> None:
        self.index, self.results, self.inputs = index, results, inputs

    def raw(self, argument: Argument) -> bytes:
        """The argument's encoding; a missing input is null (S29).

        Raises: `BadArgument` for a path that leads nowhere.
        """
        if isinstance(argument, StepRef):
            found = self.results[self.index[argument.step]]
            return _picked(NULL if found is None else found, argument.path, argument.step)
        if isinstance(argument, Value):
            return bytes(argument.value)
        if isinstance(argument, InputRef):
            return _picked(self.inputs[argument.name], argument.path, argument.name)
        return self._nested(argument)

    def _nested(self, argument: Many | Fields) -> bytes:
        if isinstance(argument, Many):
            return b"[%b]" % b",".join([self.raw(item) for item in argument.items])
        pairs = [b"%b:%b" % (msgspec.json.encode(name), self.raw(item)) for name, item in argument.fields.items()]
        return b"{%b}" % b",".join(pairs)


def _picked(raw: bytes, path: tuple[str | int, ...], name: str) -> bytes:
    if not path or raw == NULL:
        return raw
    value: Any = msgspec.json.decode(raw)
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            raise BadArgument(f"{name} has no {part!r} (path {'.'.join(str(p) for p in path)})") from None
    return msgspec.json.encode(value)
