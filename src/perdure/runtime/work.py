"""What one commit writes, and what is done once it is durable."""

from __future__ import annotations

from asyncio import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from perdure.model.message import Message
from perdure.runtime.live import LiveRun
from perdure.state.store import Batch

if TYPE_CHECKING:
    from perdure.model.command import Activity
    from perdure.runtime.attempt import Attempt


class Item:
    """A message on its way into a run: who waits for it, and its row in the inbox (0: none).

    Shape: `asked_before` when it may have been folded already (after a commit of unknown outcome, or by its request
           id).
    """

    __slots__ = ("asked_before", "inbox_no", "message", "reply")

    def __init__(self, message: Message, reply: Future[Any] | None = None, inbox_no: int = 0) -> None:
        self.message, self.reply, self.inbox_no = message, reply, inbox_no
        self.asked_before = False


class Tick:
    """A timer or a retry of the run is due. Shape: `run` as it was when the tick was made."""

    __slots__ = ("run",)

    def __init__(self, run: LiveRun) -> None:
        self.run = run


class Install:
    """A loaded run joins those in memory, with the messages that waited for it.

    Shape: `fresh`: it was read from the store; `stale`: it has moved since, so that it is to be read again.
    """

    __slots__ = ("fresh", "items", "run", "stale")

    def __init__(self, run: LiveRun, items: list[Item], *, fresh: bool = False) -> None:
        self.run, self.items, self.fresh, self.stale = run, items, fresh, False


class Probe:
    """A step whose probe is to be run in place of its function.

    Shape: `after` is the attempt in doubt (None: a crash), `number` that which the step was at.
    """

    __slots__ = ("after", "number", "step")

    def __init__(self, step: Activity, after: Attempt | None = None) -> None:
        self.step, self.after, self.number = step, after, step.attempt


Entry = Any  # Item | Tick | Install | Attempt: told apart by type on the hot path


class Mark(NamedTuple):
    """How much a work held at some moment."""

    facts: int
    starts: int
    blobs: int
    inbox: int
    restart: int
    abandons: int
    begins: int
    size: int


class Work:
    """Shape: `entries` are what was folded, in order, to be folded again when the commit fails; `solo` is the run that
           this is for alone, since the store may refuse what it writes (empty: for any).

    Units: `size` bytes of fact bodies.
    """

    __slots__ = (
        "abandons",
        "attempts",
        "batch",
        "begins",
        "entries",
        "loads",
        "replies",
        "runs",
        "size",
        "solo",
        "starts",
    )

    def __init__(self) -> None:
        self.batch = Batch()
        self.runs: dict[LiveRun, None] = {}
        self.begins: list[tuple[LiveRun, list[Activity | Probe]]] = []
        self.abandons: list[tuple[str, str]] = []
        self.replies: list[tuple[Future[Any], Any]] = []
        self.starts: dict[str, tuple[LiveRun | None, Item]] = {}
        self.entries: list[Entry] = []
        self.attempts: list[Attempt] = []
        self.loads: dict[str, None] = {}
        self.size = 0
        self.solo = ""

    def mark(self) -> Mark:
        """How much there is now, to come back to."""
        batch = self.batch
        return Mark(
            len(batch.facts), len(batch.starts), len(batch.blobs), len(batch.inbox), len(batch.restart),
            len(self.abandons), len(self.begins), self.size,
        )  # fmt: skip

    def back_to(self, mark: Mark) -> None:
        """Forget what was gathered for one run since then, and for no other."""
        batch = self.batch
        del batch.facts[mark.facts :], batch.starts[mark.starts :], batch.blobs[mark.blobs :]
        del batch.inbox[mark.inbox :], batch.restart[mark.restart :]
        del self.abandons[mark.abandons :], self.begins[mark.begins :]
        self.size = mark.size

    def tell(self) -> None:
        """Answer those who wait for what is durable now."""
        for reply, value in self.replies:
            if not reply.done():
                if isinstance(value, BaseException):
                    reply.set_exception(value)
                else:
                    reply.set_result(value)

    def empty(self) -> bool:
        """Whether there is nothing to write and nothing to tell."""
        batch = self.batch
        return not (
            batch.facts or batch.starts or batch.inbox or batch.inbox_done or batch.updates or batch.answers or
            batch.progress
            or batch.remove or batch.clean or self.replies or self.attempts or self.begins or
            self.abandons or self.runs
        )  # fmt: skip


def run_of(entry: Entry) -> str:
    """The id of the run that an entry is for."""
    if isinstance(entry, Item):
        return entry.message.run
    if isinstance(entry, Message):
        return entry.run
    if isinstance(entry, LiveRun):
        return entry.id
    if isinstance(entry, Tick | Install):
        return entry.run.id
    return str(entry.run_id)
