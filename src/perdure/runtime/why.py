"""Looking up why a run waits: its row, facts, messages, engines and children; by indexed look-ups, with bounds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from perdure.clock import Clock
from perdure.errors import StoreDamaged, UnknownRun
from perdure.model import message as m
from perdure.model.ids import check_id
from perdure.model.run import Life, Outcome, RunRow
from perdure.monitoring.activity import Activity
from perdure.monitoring.why import Looked, Served, Why, explain
from perdure.runtime.replay import Known, decode
from perdure.runtime.suspects import note_of
from perdure.runtime.ways import ways_out
from perdure.state.store import EpochRow, InboxRow, Loaded, WholeStore

# How deep children are followed, how many of one run, and how many runs in all.
DEPTH_MAX, CHILDREN_MAX, RUNS_MAX = 5, 5, 50
# Of a longer history the facts since its snapshot are enough.
FACTS_MAX = 20_000
# So many messages of the inbox are looked at, the oldest.
INBOX_MAX = 1_000


async def why_of(store: WholeStore, run_id: str, now: int, own: dict[int, Activity] | None = None) -> Why:
    """What a run waits for. Shape: `own` is what an engine here does now, by its epoch. Raises: `UnknownRun`."""
    rows = await _load(store, [run_id])
    if not rows:
        raise UnknownRun(run_id)
    looking = _Looking(store, now, await store.epochs(), own or {})
    if not rows[0].row.life.ended:
        looking.inbox = await store.inbox(0, INBOX_MAX)
    return explain((await looking.at(rows, 0))[run_id])


class Explaining:
    """Whoever has a store and a clock can say why a run waits."""

    store: WholeStore
    clock: Clock

    async def why(self, run_id: str) -> Why:
        """What the run waits for, each thing with how long and what would end it. Raises: `UnknownRun`."""
        return await why_of(self.store, check_id(run_id), self.clock.now_us(), self._doing())

    def _doing(self) -> dict[int, Activity]:
        """What is done here, by epoch, where it is known better than the store knows it."""
        return {}


class _Looking:
    """Shape: `left` more runs may be looked at."""

    def __init__(self, store: WholeStore, now: int, epochs: Sequence[EpochRow], own: dict[int, Activity]) -> None:
        self.store, self.now = store, now
        self.engines = [_served(row, own) for row in epochs if row.live]
        self.last = _served(epochs[0], own) if epochs else None
        self.inbox: list[InboxRow] = []
        self.left = RUNS_MAX

    async def at(self, loaded: list[Loaded], depth: int) -> dict[str, Looked]:
        """What is known of these runs, and of the children that they wait for."""
        found: dict[str, Looked] = {}
        wanted: dict[str, str] = {}
        for one in loaded:
            row = one.row
            self.left -= 1
            found[row.id] = Looked(
                row=row, now=max(self.now, row.updated_at), engines=self.engines, last=self.last, facts=_known(one),
                progress=one.progress, unread=[that.message for that in self.inbox if that.message.run == row.id],
                place=self._place(row), ways=_ways(row),
            )  # fmt: skip
            if row.life is Life.LIVE and depth < DEPTH_MAX:
                wanted.update((child, row.id) for child in row.wait.children[:CHILDREN_MAX])
        ids = list(wanted)[: max(0, self.left)]
        if ids:
            for child, looked in (await self.at(await _load(self.store, ids), depth + 1)).items():
                parent = found[wanted[child]]
                parent.children = {**parent.children, child: looked}
        return found

    def _place(self, row: RunRow) -> int:
        """Where a queued run stands among the starts in the inbox, counted from 1; 0: not among those looked at."""
        if row.life is not Life.QUEUED:
            return 0
        starts = [one.message.run for one in self.inbox if isinstance(one.message, m.Start)]
        return starts.index(row.id) + 1 if row.id in starts else 0


async def _load(store: WholeStore, ids: Sequence[str]) -> list[Loaded]:
    """The runs with the facts of their generation; a long graph's with those since its snapshot."""
    found = await store.load(ids, snapshot=True)
    whole = [one.row.id for one in found if one.snapshot is not None and one.row.seq <= FACTS_MAX]
    again = {one.row.id: one for one in await store.load(whole)} if whole else {}
    return [again.get(one.row.id, one) for one in found]


def _known(one: Loaded) -> Known:
    if one.row.life is not Life.LIVE:
        return []
    try:
        return decode(one.facts)
    except StoreDamaged:
        return []  # the audit names that; what the row says is told all the same


def _served(row: EpochRow, own: dict[int, Activity]) -> Served:
    note = note_of(row)
    doing = own.get(row.epoch) or note.doing or Activity()
    return Served(row.epoch, row.node, row.pid, frozenset(note.serves), doing, row.clean, row.until)


def _ways(row: RunRow) -> str:
    if row.life is not Life.ATTENTION:
        return ""
    return ways_out(row.id, msgspec.json.decode(row.outcome or b"{}", type=Outcome))
