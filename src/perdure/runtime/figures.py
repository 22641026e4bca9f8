"""What a node has done and does now, for whoever watches it."""

from __future__ import annotations

from heapq import nsmallest

from perdure.model.fact import AttemptFailed, decode_fact
from perdure.monitoring.progress import Figures, RunningStep
from perdure.runtime.node import Node
from perdure.runtime.work import Work

_DONE = (b'["step_completed"', b'["child_ended"')
_FAILED = b'["attempt_failed"'


class NodeFigures:
    """Counts what a node commits between `begin` and `end`; costs nothing before and after."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.done = self.failed = self.retried = 0

    def begin(self) -> None:
        self.node.on_commit.append(self._count)

    def end(self) -> None:
        if self._count in self.node.on_commit:
            self.node.on_commit.remove(self._count)

    def now_s(self) -> float:
        return self.node.clock.monotonic()

    def _count(self, work: Work) -> None:
        for _, _, body, _ in work.batch.facts:
            if body.startswith(_DONE):
                self.done += 1
            elif body.startswith(_FAILED):
                fact = decode_fact(body)
                if isinstance(fact, AttemptFailed) and fact.retry_at is not None:
                    self.retried += 1
                else:
                    self.failed += 1

    def look(self, steps_max: int) -> Figures:
        """The figures now. Shape: at most `steps_max` running steps, the longest first."""
        now_us = self.node.clock.now_us()
        there = [attempt for attempt in self.node.pools.running.values() if not (attempt.done or attempt.left)]
        begun = [attempt for attempt in there if attempt.started]
        longest = nsmallest(steps_max, begun, key=lambda attempt: attempt.started)
        steps = [
            RunningStep(
                attempt.key, attempt.number, max(0, now_us - attempt.started) / 1e6,
                attempt.progress_new if attempt.progress_new is not None else attempt.progress,
            )
            for attempt in longest
        ]  # fmt: skip
        return Figures(self.done, self.failed, self.retried, len(begun), len(there) - len(begun), steps)
