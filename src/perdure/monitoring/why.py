"""Why a run does not go on: the exact things that it waits for, each with how long and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from perdure.kernel.fold import UNDO
from perdure.model import fact as f
from perdure.model import message as m
from perdure.model.run import Life, Outcome, RunRow, Status, when
from perdure.model.text import escape
from perdure.monitoring.activity import Activity, Doing
from perdure.monitoring.progress import lasting

# So many of each kind are named, and so many holders of places.
NAMED_MAX: Final = 20
HOLDERS_MAX: Final = 5
VALUE_MAX: Final = 120
MESSAGE_MAX: Final = 200

Kind = Literal[
    "ended", "attention", "no_engine", "not_served", "queued", "message", "settling", "step", "place", "due", "retry",
    "timer", "signal", "child", "turn",
]  # fmt: skip


class Reason(msgspec.Struct, omit_defaults=True):
    """One thing that a run waits for, or that keeps it.

    Shape: `text` is one line, safe for a terminal; `name` the signal, step, child run or workflow it is about; `since` is
           exact unless `at_least`, when it may have been so for longer; `until` is when it is due; `command` would end
           it; `holders` are (run, step) that hold the places it waits for; `reasons` what a child waits for itself.
    """

    kind: Kind
    text: str
    name: str = ""
    since: datetime | None = None
    at_least: bool = False
    until: datetime | None = None
    command: str = ""
    attempt: int = 0
    node: str = ""
    pid: int = 0
    progress: msgspec.Raw | None = None
    error: str = ""
    holders: list[tuple[str, str]] = []
    reasons: list[Reason] = []


class Why(msgspec.Struct):
    """What a run waits for. Shape: `reasons` are never empty, what keeps all others first."""

    run: str
    workflow: str
    version: str
    status: Status
    reasons: list[Reason]


class Served(msgspec.Struct, frozen=True):
    """One engine: running now, or the last that did. Shape: `serves` are (workflow, version)."""

    epoch: int
    node: str
    pid: int
    serves: frozenset[tuple[str, str]]
    doing: Activity = Activity()
    clean: bool = False
    until: int = 0

    @property
    def place(self) -> str:
        return f"{escape(self.node, 60)} (pid {self.pid})"


class Looked(msgspec.Struct):
    """What was looked up of one run.

    Shape: `facts` are those of its generation (or the newest of them), `unread` its messages in the inbox, `place` where
           it stands among the queued (0: not known); `ways` are ways out of attention; `children` by id, those looked at.
    Units: `now` microseconds since 1970 UTC.
    """

    row: RunRow
    now: int
    engines: Sequence[Served] = ()
    last: Served | None = None
    facts: Sequence[tuple[int, f.AnyFact]] = ()
    progress: Mapping[str, bytes] = {}
    unread: Sequence[m.AnyMessage] = ()
    place: int = 0
    ways: str = ""
    children: Mapping[str, Looked] = {}


def explain(found: Looked) -> Why:
    """All that the run waits for."""
    row = found.row
    return Why(row.id, row.workflow, row.version, row.status, list(_reasons(found)))


def _reasons(found: Looked) -> Iterator[Reason]:
    row = found.row
    if row.life.ended:
        yield _ended(row)
        return
    if row.life is Life.ATTENTION:
        yield from _attention(found)
        yield from _unread(found, "kept until the run is resumed")
        return
    owner = _owner(found)
    kept = _not_moved(found, owner)
    if kept is not None:
        yield kept
    if row.life is Life.QUEUED:
        if kept is None:
            yield _queued(found, owner)
        yield from _unread(found, "taken up once the run has begun")
        return
    yield from _unread(found, "not taken up yet")
    count = 0
    for reason in _waits(found, owner):
        count += 1
        yield reason
    if not count:
        yield Reason("turn", "its next turn: nothing else keeps it", since=when(row.updated_at))


# --- what keeps all of it ----------------------------------------------------------------------------


def _ended(row: RunRow) -> Reason:
    outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
    told = outcome.failure.summary() if outcome.failure is not None else outcome.reason or ""
    text = f"nothing: it {'was ' if row.life is Life.CANCELLED else 'has '}{row.life.value}"
    return Reason(
        "ended", text + (f" ({escape(told, MESSAGE_MAX)})" if told else ""), error=escape(told, MESSAGE_MAX),
        since=None if row.ended_at is None else when(row.ended_at),
        command=f"perdure retry {row.id}" if row.life is not Life.COMPLETED else "",
    )  # fmt: skip


def _attention(found: Looked) -> Iterator[Reason]:
    row = found.row
    outcome = msgspec.json.decode(row.outcome or b"{}", type=Outcome)
    where = f" ({escape(outcome.step)})" if outcome.step else ""
    text = f"a person{where}: {escape(outcome.reason or 'it needs attention', 2 * MESSAGE_MAX)}; {escape(found.ways)}"
    yield Reason("attention", text, name=outcome.step or "", since=when(row.updated_at), error=outcome.cause or "")


def _owner(found: Looked) -> Served | None:
    """The engine that moves the run, or may: the one that moved it last, else any that serves its version."""
    row = found.row
    mine = next((one for one in found.engines if row.epoch == one.epoch), None)
    return mine or next((one for one in found.engines if (row.workflow, row.version) in one.serves), None)


def _not_moved(found: Looked, owner: Served | None) -> Reason | None:
    """Why no engine moves it: none runs, or none serves its workflow and version."""
    row, what = found.row, f"{escape(found.row.workflow)} (version {escape(found.row.version)})"
    if owner is not None:
        return None
    if not found.engines:
        text, since = f"an engine that serves {what}: none runs on this store", None
        if found.last is not None:
            ended = "stopped" if found.last.clean else "died"
            text += f"; the last one, epoch {found.last.epoch} on {found.last.place}, {ended}"
            if found.last.until:
                since = when(found.last.until)
                text += f" {_ago(found.last.until, found.now)} ago"
        return Reason("no_engine", text, name=row.workflow, since=since, command=_start_of(row))
    served = sorted(
        {(version, one.place) for one in found.engines for name, version in one.serves if name == row.workflow}
    )
    if served:
        names = ", ".join(f"version {escape(version)} on {place}" for version, place in served[:NAMED_MAX])
        text = f"an engine that serves {what}: only {names} {'is' if len(served) == 1 else 'are'} served"
    else:
        places = ", ".join(one.place for one in found.engines[:HOLDERS_MAX])
        text = f"an engine that serves {what}: no version of it is served by the engine{'s' * (len(found.engines) > 1)} on {places}"
    return Reason("not_served", text, name=row.workflow, command=_start_of(row))


def _start_of(row: RunRow) -> str:
    """What would start an engine for it, where the file is known."""
    return f"perdure run {row.source}:{row.workflow} --id {row.id}" if row.source.endswith(".py") else ""


def _queued(found: Looked, owner: Served | None) -> Reason:
    since, place = when(found.row.created_at), f"place {found.place:,}" if found.place else "a place"
    doing = owner.doing if owner is not None else Activity()
    if doing.live_max and doing.live >= doing.live_max:
        text = (
            f"{place} in the queue of starts: {doing.live:,} runs move, of at most {doing.live_max:,} (runs_live_max)"
        )
    else:
        text = f"{place} in the queue of starts: it begins when fewer than runs_live_max runs move, or at the next look"
    return Reason("queued", text, since=since)


def _unread(found: Looked, then: str) -> Iterator[Reason]:
    for message in found.unread[:NAMED_MAX]:
        if isinstance(message, m.Start | m.Fork):
            continue
        what = type(message).__name__.lower() if not isinstance(message, m.ChildDone) else "end of a child"
        name = {m.Signal: "name", m.ChildDone: "child", m.Resolve: "step"}.get(type(message), "")
        said = str(getattr(message, name, ""))
        text = (
            f"{what}{' ' * bool(said)}{escape(said, 60)} lies in the inbox since {_ago(message.at, found.now)}: {then}"
        )
        yield Reason("message", text, name=said, since=when(message.at))


# --- what it waits for itself ------------------------------------------------------------------------


def _waits(found: Looked, owner: Served | None) -> Iterator[Reason]:
    row = found.row
    if row.wait.settling:
        yield _settling(found)
    yield from _steps(found, owner)
    retries = _retries(found.facts)
    yield from _retrying(found, retries)
    for name in row.wait.signals[:NAMED_MAX]:
        yield Reason(
            "signal", f"signal {escape(name, 60)}, for {_ago(row.updated_at, found.now)} or longer", name=name,
            since=when(row.updated_at), at_least=True, command=f"perdure signal {row.id} {name} JSON",
        )  # fmt: skip
    due = row.wait.due
    if due is not None and due not in {fact.retry_at for fact in retries.values()}:
        yield Reason("timer", f"a timer, {_until(due, found.now)}", until=when(due))
    for child in row.wait.children[:NAMED_MAX]:
        yield _child(found, child)
    if len(row.wait.children) > NAMED_MAX:
        yield Reason("child", f"{len(row.wait.children) - NAMED_MAX:,} more child runs")


def _settling(found: Looked) -> Reason:
    """Why it is about to end: a cancel that was asked for, else its failure."""
    asked = next((fact for _, fact in reversed(found.facts) if isinstance(fact, f.CancelRequested)), None)
    text = "its own end: open steps are brought to recorded ends, and what succeeded is undone"
    if asked is None:
        return Reason("settling", text)
    why = f" ({escape(asked.reason, MESSAGE_MAX)})" if asked.reason else ""
    return Reason(
        "settling", f"{text}; cancelling was asked for {_ago(asked.at, found.now)} ago{why}", since=when(asked.at)
    )


def _steps(found: Looked, owner: Served | None) -> Iterator[Reason]:
    """Steps that are in an attempt, or could be."""
    row, engine = found.row, owner
    doing = engine.doing.of(row.id) if engine is not None else []
    for one in doing[:NAMED_MAX]:
        assert engine is not None
        yield _running(found, one, engine) if one.since else _placeless(one, engine)
    left = row.wait.open - len(doing)
    known = [] if engine is None else [key for key in found.progress if key not in {one.key for one in doing}]
    known = [key for key in known if key not in _retries(found.facts)][: max(0, min(left, NAMED_MAX))]
    for key in known:
        told = found.progress[key]
        text = f"step {_step(key)}, which has told {escape(told.decode('utf-8', 'replace'), VALUE_MAX)}"
        yield Reason("step", text, name=key, progress=msgspec.Raw(told))
    left -= len(known)
    if left > 0:
        yield _due(found, left, engine)


def _running(found: Looked, one: Doing, engine: Served) -> Reason:
    told = found.progress.get(one.key)
    text = f"step {_step(one.key)}, attempt {one.attempt}, for {_ago(one.since, found.now)} on {engine.place}"
    if told is not None:
        text += f", last progress {escape(told.decode('utf-8', 'replace'), VALUE_MAX)}"
    return Reason(
        "step", text, name=one.key, since=when(one.since), attempt=one.attempt, node=engine.node, pid=engine.pid,
        progress=None if told is None else msgspec.Raw(told),
    )  # fmt: skip


def _placeless(one: Doing, engine: Served) -> Reason:
    """A step that waits for a place, with the bound that is reached and those that hold its places."""
    doing = engine.doing
    used, bound = doing.tasks.get(one.task, (0, 0))
    if bound and used >= bound:
        held = [other for other in doing.attempts if other.since and other.task == one.task]
        what = f"one of the {bound:,} places of task {escape(one.task, 60)} (its concurrency)"
    else:
        used, bound = doing.pools.get(one.pool, (0, 0))
        held = [other for other in doing.attempts if other.since and other.pool == one.pool]
        name = {"thread": "threads_max", "process": "processes_max"}.get(one.pool, "async_max")
        what = f"one of the {bound:,} places for {one.pool} attempts ({name})"
    names = ", ".join(f"{_step(other.key)} of {other.run}" for other in held[:HOLDERS_MAX])
    more = f" and {used - HOLDERS_MAX:,} more" if used > HOLDERS_MAX and len(held) >= HOLDERS_MAX else ""
    text = f"step {_step(one.key)}, attempt {one.attempt}, for {what} on {engine.place}"
    return Reason(
        "place", text + (f": {names}{more} hold{'s' * (used == 1)} them" if names else ""), name=one.key,
        since=when(one.asked), attempt=one.attempt, node=engine.node, pid=engine.pid,
        holders=[(other.run, other.key) for other in held[:NAMED_MAX]],
    )  # fmt: skip


def _due(found: Looked, count: int, engine: Served | None) -> Reason:
    """Steps of which nothing more is known: they are short, or wait for an engine."""
    begun = _intents(found.facts)
    names = f" ({', '.join(map(_step, begun[:HOLDERS_MAX]))} may have begun)" if begun else ""
    steps = f"{count:,} step{'s' * (count != 1)}{names}"
    if engine is None:
        return Reason(
            "due", f"{steps}, made once an engine moves the run", since=when(found.row.updated_at), at_least=True
        )
    text = f"{steps}, begun a moment ago or about to begin on {engine.place}"
    return Reason("due", text, since=when(found.row.updated_at), at_least=True, node=engine.node, pid=engine.pid)


def _intents(facts: Sequence[tuple[int, f.AnyFact]]) -> list[str]:
    """Steps that may be made at most once, whose attempt was about to begin and has no outcome."""
    begun: dict[str, None] = {}
    for _, fact in facts:
        if isinstance(fact, f.IntentRecorded):
            begun[fact.key] = None
        elif isinstance(fact, f.StepCompleted | f.AttemptFailed | f.StepResolved):
            begun.pop(fact.key, None)
    return list(begun)


def _retries(facts: Sequence[tuple[int, f.AnyFact]]) -> dict[str, f.AttemptFailed]:
    """The last failed attempt of each step that is to be tried again."""
    found: dict[str, f.AttemptFailed] = {}
    for _, fact in facts:
        if isinstance(fact, f.AttemptFailed) and fact.retry_at is not None:
            found[fact.key] = fact
        elif isinstance(fact, f.AttemptFailed | f.StepCompleted | f.StepResolved | f.StepSkipped):
            found.pop(fact.key, None)
        elif isinstance(fact, f.RunContinued | f.RunRetried):
            found.clear()
    return found


def _retrying(found: Looked, retries: Mapping[str, f.AttemptFailed]) -> Iterator[Reason]:
    """Retries to come, the earliest first: as many as wait for theirs, since others may be in their next attempt."""
    row = found.row
    later = sorted(
        (fact for fact in retries.values() if (fact.retry_at or 0) > found.now), key=lambda one: one.retry_at or 0
    )
    over = sorted(
        (fact for fact in retries.values() if (fact.retry_at or 0) <= found.now), key=lambda one: -(one.retry_at or 0)
    )
    for fact in [*later, *over][: min(row.wait.retrying, NAMED_MAX)]:
        error = escape(fact.failure.summary(), MESSAGE_MAX)
        due = fact.retry_at or 0
        text = f"step {_step(fact.key)}, to be tried again {_until(due, found.now)}: attempt {fact.attempt} failed ({error})"
        yield Reason(
            "retry", text, name=fact.key, since=when(fact.at), until=when(due), attempt=fact.attempt + 1, error=error
        )
    if row.wait.retrying > max(len(retries), NAMED_MAX) or (row.wait.retrying and not retries):
        yield Reason("retry", f"{row.wait.retrying:,} steps to be tried again", until=_when(row.wait.due))


def _child(found: Looked, child: str) -> Reason:
    looked = found.children.get(child)
    if looked is None:
        return Reason("child", f"child run {child}", name=child, command=f"perdure why {child}")
    row = looked.row
    text = f"child run {child} of {escape(row.workflow)}, which is {row.status}"
    return Reason(
        "child", text, name=child, since=when(row.created_at), command=f"perdure why {child}",
        reasons=list(_reasons(looked)),
    )  # fmt: skip


# --- text --------------------------------------------------------------------------------------------


def _step(key: str) -> str:
    return f"{escape(key.removeprefix(UNDO), 60)} (being undone)" if key.startswith(UNDO) else escape(key, 60)


def _ago(at: int, now: int) -> str:
    return lasting(max(0, now - at) / 1e6)


def _until(due: int, now: int) -> str:
    return f"in {lasting((due - now) / 1e6)}" if due > now else f"due {_ago(due, now)} ago"


def _when(due: Any) -> datetime | None:
    return None if due is None else when(due)
