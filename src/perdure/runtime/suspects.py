"""Which runs may be killing their node, found without condemning a neighbour (S15).

After two starts in a row that died within a minute of beginning marked steps, without any new outcome, the suspects
are carried in halves and everyone else as usual; a run goes to attention only when it was carried alone in three such
deaths. What is remembered from start to start stands in the epoch's note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.clock import Clock
from perdure.kernel.suspicion import Suspicion, judge
from perdure.monitoring.activity import Activity
from perdure.runtime.picture import Picture
from perdure.state.store import EpochRow

if TYPE_CHECKING:
    from perdure.runtime.live import LiveRun
    from perdure.runtime.loader import Loader
    from perdure.runtime.node import Node
    from perdure.runtime.work import Work

MINUTE_S = 60.0
CARRIED_MAX = 10_000


class Note(msgspec.Struct, omit_defaults=True):
    """An epoch's own remarks.

    Shape: `serves` are (name, version) of workflows; `carried` are runs whose marked steps were begun, `outcomes` of such
           that were recorded; `lived` is set once the epoch lived a minute after it began them; `seen` is what the wall
           said then (`Sighting`); `doing` names the steps that take long, for `why`.
    """

    serves: list[tuple[str, str]] = []
    carried: list[str] = []
    outcomes: int = 0
    lived: bool = False
    seen: tuple[str, int, int] = ("", 0, 0)
    doing: Activity | None = None


def first_note(serves: list[tuple[str, str]], clock: Clock) -> Note:
    """What an epoch remarks when it begins."""
    return Note(serves=serves, seen=clock.sighting())


def note_of(row: EpochRow) -> Note:
    """What an epoch remarked; an empty note where it cannot be read."""
    try:
        return msgspec.json.decode(row.note or b"{}", type=Note)
    except msgspec.DecodeError:
        return Note()


class Suspects:
    """Who is kept back, who is carried, who is condemned.

    Shape: `back` are runs that wait in this epoch until those carried first have shown themselves harmless.
    """

    def __init__(self, node: Node, loader: Loader, earlier: list[EpochRow], serves: list[tuple[str, str]]) -> None:
        self.node, self.loader, self.serves = node, loader, serves
        clean_since = next((i for i, row in enumerate(earlier) if row.clean), len(earlier))
        notes = [note_of(row) for row in earlier[:clean_since]]
        self.verdict: Suspicion = judge([(tuple(note.carried), bool(note.outcomes or note.lived)) for note in notes])
        self.note = first_note(serves, node.clock)
        loader.suspects = self
        node.on_commit.append(self._committed)
        node.note = self._encoded
        self.picture = Picture(node)
        if self.verdict.back:  # those to be carried first may have ended: a minute's life releases in any case
            node.loop.call_later(MINUTE_S, self._lived, self.note)

    def may_carry(self, run_id: str) -> bool:
        """Whether a recovered run with marked steps may begin them now."""
        return run_id not in self.verdict.back

    def condemned(self, run_id: str) -> bool:
        """Whether the run was carried alone in three deaths."""
        return run_id in self.verdict.condemned

    def carried(self, run: LiveRun) -> None:
        """Marked steps of this run are about to begin: the note says so in the same commit."""
        carried = self.note.carried
        if len(carried) < CARRIED_MAX and run.id not in carried[-1:]:
            carried.append(run.id)
            if len(carried) == 1:
                self.node.loop.call_later(MINUTE_S, self._lived, self.note)
        self.node.note_due = True

    def _lived(self, note: Note) -> None:
        """A minute has passed since marked steps were begun: they do not kill at once."""
        if note is not self.note:  # others were carried since, and have their own minute
            return
        self.note.lived = True
        self.keep()
        self._release()

    def _committed(self, work: Work) -> None:
        if self.note.outcomes or not self.note.carried:
            return
        if any(
            run.marked and attempt.key in run.marked
            for attempt in work.attempts
            for run in work.runs
            if run.id == attempt.run_id
        ):
            self.note.outcomes += 1
            self.keep()
            self._release()

    def keep(self) -> None:
        """Let the next commit keep the note, and the engine's time with it."""
        self.node.note_due = True
        self.node.wake()

    def _encoded(self) -> bytes:
        self.note.doing = self.picture.note()
        return msgspec.json.encode(self.note)

    def _release(self) -> None:
        """Those carried first are harmless, or slow: carry the others, who are judged on their own."""
        if not self.verdict.back:
            return
        self.note = first_note(self.serves, self.node.clock)
        back, self.verdict = self.verdict.back, Suspicion(frozenset(), self.verdict.condemned)
        for run_id in sorted(back):
            self.loader(run_id, None)
        if self.loader.kept_back & back:
            self.loader.kept_back -= back
            self.node.rescan()
