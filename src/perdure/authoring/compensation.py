"""Whether a compensation takes what it will be given: the arguments of what it undoes, then the result."""

from __future__ import annotations

from inspect import Parameter
from typing import Any, Final

from perdure.errors import DefinitionError
from perdure.model.signature import Signature
from perdure.model.task import TaskSpec

_STARS: Final[dict[object, str]] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}


def check_compensation(where: str, signature: Signature, undo: Any) -> None:
    """Raises: `DefinitionError` saying which parameters are expected, and which it has."""
    if undo is None:
        return
    if not isinstance(undo, TaskSpec):
        raise DefinitionError(f"{where}: compensate= takes a task, not {undo!r}")
    if not _fits(signature, undo.signature):
        given = ", ".join((*(_said(p) for p in signature.parameters), "result"))
        has = ", ".join(_said(p) for p in undo.signature.parameters) or "no parameter"
        raise DefinitionError(
            f"{where}: its compensation is given its arguments, then its result, so {undo.name} must take "
            f"({given}), and it takes ({has})"
        )


def _fits(done: Signature, undo: Signature) -> bool:
    """Whether all values of a call, in order, and one more can be passed on as `Signature.call` does."""
    given, takes = len(done.parameters) + 1, undo.parameters
    if all(p.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD} for p in takes):
        return len(undo.required) <= given <= len(takes)
    # A `*` or `**` of the one is filled by the same of the other, and by nothing else.
    return [_STARS.get(p.kind) for p in takes] == [*(_STARS.get(p.kind) for p in done.parameters), None]


def _said(parameter: Parameter) -> str:
    return f"{_STARS.get(parameter.kind, '')}{parameter.name}"
