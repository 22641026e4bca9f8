"""A store that refuses what single runs write, for a while or for good (D3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from perdure.state.store import Batch, BatchRefused

_ENDED = (b'["step_completed"', b'["attempt_failed"', b'["child_ended"')
FOR_GOOD = 1_000_000
_ATTENTION = b'["attention_set"'


def _facts(batch: Batch, run: str) -> Iterator[bytes]:
    return (body for ref, _, body, _ in batch.facts if ref.id == run)


def _ends(batch: Batch, run: str) -> bool:
    return any(body.startswith(_ENDED) for body in _facts(batch, run))


def _all_but_attention(batch: Batch, run: str) -> bool:
    return any(not body.startswith(_ATTENTION) for body in _facts(batch, run))


def _all(batch: Batch, run: str) -> bool:
    return run in {ref.id for ref, *_ in (*batch.facts, *batch.updates)} | {new.ref.id for new in batch.starts}


WAYS: dict[str, Callable[[Batch, str], bool]] = {"ends": _ends, "all but attention": _all_but_attention, "all": _all}


# More refusals in one life are an endless loop: there are some ten in most.
REFUSED_MAX = 1_000


class Spins(SystemExit):
    """The engine tries for ever what is refused. An event loop lets this out at once."""


class Dislikes:
    """Shape: `runs` maps ids to what is refused of the run, and how often still; `guilty` are all that a refusal may be
    blamed on, a parent too with whose facts its child begins; `done` counts refusals.
    """

    def __init__(self, random: Random, done: Counter[str]) -> None:
        self.random, self.done = random, done
        self.runs: dict[str, tuple[Callable[[Batch, str], bool], int]] = {}
        self.guilty: set[str] = set()

    def add(self, run: str, way: str = "") -> None:
        """From now on the store dislikes this run, in this way for good, or in any, for a while or for good."""
        way, often = (way, FOR_GOOD) if way else (self.random.choice([*WAYS]), self.random.choice((1, 2, 4, FOR_GOOD)))
        self.runs[run] = WAYS[way], often
        self.guilty.add(run)
        self.done["disliked"] += 1

    def lift(self) -> None:
        """The store takes everything again."""
        self.runs.clear()

    def __call__(self, batch: Batch) -> None:
        for run, (dislikes, left) in self.runs.items():
            if left and dislikes(batch, run):
                self.runs[run] = dislikes, left - 1
                self.guilty.update(new.parent for new in batch.starts if new.ref.id == run and new.parent)
                self.done["refused"] += 1
                if self.done["refused"] > REFUSED_MAX:
                    raise Spins(f"what is written of {run} was refused {REFUSED_MAX} times")
                raise BatchRefused(f"it dislikes run {run}")
