"""Snapshots of graph runs: the fold at a fact, so that a load folds only what came after it.

Recovery goes from the snapshot to the facts behind it; where the snapshot does not hold, to all facts.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.errors import StoreDamaged
from perdure.kernel.graph import Graph

if TYPE_CHECKING:
    from perdure.runtime.live import LiveRun
    from perdure.runtime.work import Work
    from perdure.settings import Settings

# Raised whenever a fold is written otherwise: older snapshots are then left aside.
FORMAT: Final = 2
DIGEST: Final = 16
# A snapshot may be this part of a batch at most: a run with larger results is folded from its facts.
PART: Final = 4


class Snapshot(msgspec.Struct, array_like=True):
    """Shape: `definition` is the hash of that by which it was folded; `requests` are those consumed so far."""

    format: int
    definition: str
    requests: list[str]
    fold: msgspec.Raw


def plan_next(run: LiveRun, settings: Settings) -> None:
    """When the run's next snapshot is due.

    Shape: they stand at least as far apart as the facts before them and half the graph, so that all of them together
           cost a small part of what folding the facts does.
    """
    assert run.spec.graph is not None
    run.snapshot_at = run.snapped + max(settings.snapshot_facts, run.snapped, len(run.spec.graph.nodes) // 2)


def write(run: LiveRun, work: Work, settings: Settings) -> None:
    """Add a snapshot of the run to its commit; none while it settles, or where it would be too large."""
    decider = run.decider
    fold = decider.snapshot(settings.batch_bytes_max // PART) if isinstance(decider, Graph) else None
    if fold is None:
        run.snapshot_at = run.seq * 2
        return
    body = msgspec.json.encode(Snapshot(FORMAT, run.definition, sorted(run.requests), msgspec.Raw(fold)))
    work.batch.snapshots.append((run.ref, run.seq, blake2b(body, digest_size=DIGEST).digest() + body))
    work.size += len(body)
    run.snapped = run.seq
    plan_next(run, settings)


def drop(run: LiveRun, work: Work) -> None:
    """The run has ended: nothing will be loaded from its snapshot any more."""
    work.batch.snapshots.append((run.ref, run.seq, b""))
    run.snapped = run.snapshot_at = 0


def take_up(run: LiveRun, seq: int, body: bytes) -> None:
    """Put the fold of a snapshot in the place of the facts up to `seq`. Raises: `StoreDamaged` when it does not hold."""
    digest, rest = body[:DIGEST], body[DIGEST:]
    if blake2b(rest, digest_size=DIGEST).digest() != digest:
        raise StoreDamaged(f"the snapshot at fact {seq} does not match its hash")
    snapshot, decider = msgspec.json.decode(rest, type=Snapshot), run.decider
    if not isinstance(decider, Graph) or snapshot.format != FORMAT or snapshot.definition != run.spec.definition_hash:
        raise StoreDamaged(f"the snapshot at fact {seq} is of another definition, or of another perdure")
    decider.restore(bytes(snapshot.fold))
    run.requests.update(snapshot.requests)
    run.snapped = seq
