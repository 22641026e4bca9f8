"""Ending a run without its code: what is owed is read from its facts and undone (S19)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from perdure.kernel.attempt import DOUBTFUL
from perdure.kernel.decider import Catalogue, Decider, Intent, Trouble, restore_owed
from perdure.kernel.steps import UNDO, Undo
from perdure.model import fact as f
from perdure.model.payload import Shape, Signature
from perdure.model.workflow import WorkflowSpec

# Before the name in a flow's key: the task that asked, by its ordinals.
_SCOPE = re.compile(r"^(?:c?\d+\.)*")
# What a compensation undoes, with the generation where that is an earlier one's.
_UNDONE = re.compile(r"undo:(.*?)(?:@(\d+))?", re.DOTALL)


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
        self._owed: dict[tuple[int, str], f.Owed] = {}
        self._tried: dict[str, f.AttemptFailed] = {}

    def _owe_from(self, fact: f.StepCompleted | f.ChildEnded | f.AttemptFailed) -> None:
        name = self._task_of(fact.key)
        if fact.args != f.NULL:
            known = not isinstance(fact, f.AttemptFailed)
            result = f.NULL if isinstance(fact, f.AttemptFailed) else fact.result
            owed = f.Owed(fact.key, self.generation, name, fact.args, result, known)
            self._owed[owed.generation, owed.key] = owed

    def _task_of(self, key: str) -> str:
        """The name of a step's task: in a flow the key holds it behind its scope, in a graph the node knows it."""
        node = self.spec.tasks.get(key.partition("[")[0])
        return node.name if node is not None else _SCOPE.sub("", key).rpartition("#")[0]

    def _on_completed(self, fact: f.StepCompleted) -> None:
        if fact.key.startswith(UNDO):
            self._undone_before(fact.key)
        elif fact.key not in self.open:
            self._owe_from(fact)
        if fact.key in self.open:
            Decider._on_completed(self, fact)

    def _undone_before(self, undo: str) -> None:
        """Strike out what was undone: of the generation that is named, else of the newest that owes it."""
        parts = _UNDONE.fullmatch(undo)
        assert parts is not None
        key, named = parts[1], parts[2]
        eras = [era for era, owed in self._owed if owed == key] if named is None else [int(named)]
        if eras:
            self._owed.pop((max(eras), key), None)

    def _on_failed(self, fact: f.AttemptFailed) -> None:
        if fact.key in self.open:
            Decider._on_failed(self, fact)
        elif fact.key.startswith(UNDO):
            self._tried[fact.key] = fact
        elif fact.retry_at is None and fact.failure.kind in DOUBTFUL:
            self._owe_from(fact)

    def _undo(self, undo: Undo) -> None:
        """A compensation that was tried before goes on where it stood."""
        super()._undo(undo)
        tried = self._tried.get(undo.key)
        if tried is not None:
            undo.attempt, undo.forgiven = tried.attempt + 1, tried.attempt
            undo.ask, undo.asked_seq = tried.ask, tried.asked_seq

    def _on_child_ended(self, fact: f.ChildEnded) -> None:
        if fact.status == "completed":
            self._owe_from(fact)

    def _on_continued(self, fact: f.RunContinued) -> None:
        self.generation = self.steps_generation = fact.generation
        self._owed = {(owed.generation, owed.key): owed for owed in fact.owed}

    def _on_retried(self, fact: f.RunRetried) -> None:
        """The run went on: a forced end before that is over, and what was done since is owed (S21)."""
        self.steps_generation = fact.generation
        self.intent = self.undoing = self.cancelled = self.trouble = None
        self.ended = False
        for one in (self.open, self.fresh, self.retries, self.owed, self.commands, self.decisions, self._tried):
            one.clear()
        if self.spec.kind == "graph":
            self.generation = fact.generation

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
            (f.RunStarted, f.StepSkipped, f.SignalReceived, f.TimerFired, f.PatchTaken, *f.ENDS),
            Decider._on_note,
        ),
        f.StepCompleted: _on_completed,
        f.AttemptFailed: _on_failed,
        f.ChildEnded: _on_child_ended,
        f.RunContinued: _on_continued,
        f.RunRetried: _on_retried,
        f.StepResolved: _on_resolved,
        f.CancelRequested: _on_cancel,
    }
