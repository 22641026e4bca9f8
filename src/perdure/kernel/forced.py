"""Ending a run without its code: what is owed is read from its facts and undone (S19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from perdure.kernel.attempt import DOUBTFUL
from perdure.kernel.decider import Catalogue, Decider, Intent, Trouble, restore_owed
from perdure.kernel.steps import UNDO
from perdure.model import fact as f
from perdure.model.payload import Shape, Signature
from perdure.model.workflow import WorkflowSpec


async def _no_code() -> None:
    """Stands where the workflow's function would be."""


class Forced(Decider):
    """Folds a history for what it owes only; a forced cancel then undoes that and ends the run."""

    shape: ClassVar[str] = "forced"

    def __init__(self, run_id: str, workflow: str, catalogue: Catalogue) -> None:
        spec = catalogue.workflow(workflow, "") or WorkflowSpec(
            name=workflow,
            version="",
            kind="flow",
            signature=Signature.of(_no_code, "workflow"),
            result=Shape(Any, "result"),
            definition_hash="",
        )
        super().__init__(run_id, spec, catalogue)
        self._owed: dict[str, f.Owed] = {}
        self._missing: str | None = None

    def _owe_from(self, fact: f.StepCompleted | f.ChildEnded | f.AttemptFailed) -> None:
        name = fact.key.rpartition(".")[2].partition("#")[0]
        if fact.args != f.NULL:
            known = not isinstance(fact, f.AttemptFailed)
            result = f.NULL if isinstance(fact, f.AttemptFailed) else fact.result
            self._owed[fact.key] = f.Owed(fact.key, self.generation, name, fact.args, result, known)

    def _on_completed(self, fact: f.StepCompleted) -> None:
        if fact.key in self.open:
            Decider._on_completed(self, fact)
        elif fact.key.startswith(UNDO):
            self._owed.pop(fact.key.removeprefix(UNDO).partition("@")[0], None)
        else:
            self._owe_from(fact)

    def _on_failed(self, fact: f.AttemptFailed) -> None:
        if fact.key in self.open:
            Decider._on_failed(self, fact)
        elif fact.retry_at is None and fact.failure.kind in DOUBTFUL and not fact.key.startswith(UNDO):
            self._owe_from(fact)

    def _on_child_ended(self, fact: f.ChildEnded) -> None:
        if fact.status == "completed":
            self._owe_from(fact)

    def _on_continued(self, fact: f.RunContinued) -> None:
        self.generation = fact.generation
        self._owed = {owed.key: owed for owed in fact.owed}

    def _on_resolved(self, fact: f.StepResolved) -> None:
        if fact.key in self.open:
            Decider._on_resolved(self, fact)

    def _on_cancel(self, fact: f.CancelRequested) -> None:
        if not fact.force or self.intent is not None:
            return
        self.cancelled = fact.reason
        self.owed, missing = restore_owed(self._owed.values(), self.catalogue)
        if missing is not None:
            self.trouble = Trouble("refused", f"task {missing}, whose effect must be undone, is not served here")
            return
        self.settle(Intent("cancelled", reason=fact.reason))

    _fold: ClassVar[dict[type[f.Fact], Callable[[Any, Any], None]]] = {
        **Decider._fold,
        **dict.fromkeys(
            (f.RunStarted, f.StepSkipped, f.SignalReceived, f.TimerFired, f.PatchTaken, f.RunRetried, *f.ENDS),
            Decider._on_note,
        ),
        f.StepCompleted: _on_completed,
        f.AttemptFailed: _on_failed,
        f.ChildEnded: _on_child_ended,
        f.RunContinued: _on_continued,
        f.StepResolved: _on_resolved,
        f.CancelRequested: _on_cancel,
    }
