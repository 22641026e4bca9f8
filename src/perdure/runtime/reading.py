"""Reading a group of runs from the store: their rows and facts decoded, blobs in their places, the children they wait for.

Nothing is decided here: what becomes of each run is the loader's. What is damaged of one run stands in its own place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from perdure.authoring.registry import Registry
from perdure.errors import PerdureError, StoreDamaged
from perdure.model import fact as f
from perdure.model.run import Life, RunRow
from perdure.runtime.definitions import bind_kept
from perdure.runtime.recovery import whole_outcome
from perdure.runtime.replay import blobs_of, decode, fill
from perdure.state.store import Loaded, Query, Store


class Read(NamedTuple):
    """Shape: by run id; in the place of a history, or of a child, that cannot be read, why."""

    loaded: dict[str, Loaded]
    histories: dict[str, list[tuple[int, f.AnyFact]] | PerdureError]
    children: dict[str, RunRow | StoreDamaged]


async def read(store: Store, catalogue: Registry, ids: list[str], unsnapped: set[str]) -> Read:
    """Read these runs. Shape: those in `unsnapped`, whose snapshots did not hold, from their facts; then they are taken out.

    Raises: `StoreError` where the store cannot be read at all.
    """
    loaded = await _load(store, catalogue, ids, unsnapped)
    histories = {run_id: _decoded(one) for run_id, one in loaded.items()}
    await _fill(store, histories)
    return Read(loaded, histories, await _children(store, loaded))


async def _load(store: Store, catalogue: Registry, ids: list[str], unsnapped: set[str]) -> dict[str, Loaded]:
    """The runs from their snapshots, but for those whose snapshot did not hold; graphs kept in the store are bound."""
    found = await store.load([id for id in ids if id not in unsnapped], snapshot=True)
    whole = [id for id in ids if id in unsnapped]
    if whole:
        found = [*found, *await store.load(whole)]
        unsnapped.difference_update(whole)
    await bind_kept(store, catalogue, (one.row for one in found))
    return {one.row.id: one for one in found}


def _decoded(one: Loaded) -> list[tuple[int, f.AnyFact]] | PerdureError:
    if one.row.life not in {Life.LIVE, Life.QUEUED}:
        return []
    if one.damage:
        return StoreDamaged(one.damage)
    try:
        history = decode(one.facts)
    except StoreDamaged as error:
        return error
    if history and one.snapshot is None and not isinstance(history[0][1], f.RunStarted | f.RunContinued):
        return StoreDamaged(f"what is loaded of it begins with fact {history[0][0]}, which begins nothing")
    return history


async def _fill(store: Store, histories: dict[str, Any]) -> None:
    """Put blobs in the place of the references to them; a run that misses one of its own is damaged, alone."""
    for run_id, history in histories.items():
        hashes = set() if isinstance(history, PerdureError) else blobs_of(history)
        if hashes:
            try:
                fill(history, await store.blobs(sorted(hashes)))
            except StoreDamaged as error:
                histories[run_id] = error


async def _children(store: Store, loaded: dict[str, Loaded]) -> dict[str, RunRow | StoreDamaged]:
    """The children that are waited for; in the place of one whose result cannot be read, why."""
    ids = tuple(child for one in loaded.values() if one.row.life is Life.LIVE for child in one.row.wait.children)
    rows: dict[str, RunRow] = {}
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        rows.update((row.id, row) for row in await store.find(Query(ids=part, limit=len(part))))
    found: dict[str, RunRow | StoreDamaged] = {**rows}
    for row in rows.values():
        if row.life.ended:
            try:
                row.outcome = await whole_outcome(store, row)
            except StoreDamaged as error:
                found[row.id] = error
    return found
