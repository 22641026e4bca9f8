"""An exhaustive explorer of the lease protocol: two processes, one shard, every interleaving to a bounded depth.

A step is one thing that happens at one place; what lies between is arbitrary, so a pause, a slow network and a slow
store are all interleavings in which somebody's next step comes late. Commits, renewals and answers are messages that
are under way until they arrive, also after their sender died. Times are kept relative to now, and random words are
renamed in the order in which they are found, so that states that differ in nothing else are one.

What must hold: (1) a commit is accepted only from whoever claimed the shard last in this history of the store, so the
facts form one chain of segments, one a claim; (2) until a failover, no two processes act on the shard at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from perdure.cluster.lease import Lease

LEASE, MARGIN, NOBODY = 2, 1, 0
# What the store's side checks. A protocol is a set of these; a test takes one out.
ALIVE = "a commit and a claim need their node's row to be live"
CLAIM = "the random claims are compared, not the epoch alone"
HELD = "a commit needs its shard to be held by the very claim that it was decided under"
ORDER = "a shard is taken only after its owner was fenced"
SENT = "a lease counts from before the renewal was sent"
WHOLE = frozenset({ALIVE, CLAIM, HELD, ORDER, SENT})


class Row(NamedTuple):
    """A node in the store. Shape: `left` until its lease ends, negative once it has."""

    epoch: int
    claim: int
    left: int
    live: bool


class Kept(NamedTuple):
    """The store. Shape: `by` is who claimed last (epoch, claim, word), `owner` NOBODY when the shard is free."""

    rows: tuple[Row, ...] = ()
    owner: int = NOBODY
    word: int = 0
    by: tuple[int, int, int] = (0, 0, 0)
    next: int = 1


class Process(NamedTuple):
    """Shape: `word` is 0 while it holds nothing; `left` until it has to stop; `age` of the renewal under way (-1: none),
    `answer` what it was granted: "" while that is under way to the store."""

    starts: int
    epoch: int = 0
    claim: int = 0
    left: int = 0
    word: int = 0
    age: int = -1
    answer: str = ""

    @property
    def acts(self) -> bool:
        return self.word != 0 and self.left > 0

    def stopped(self) -> Process:
        return Process(self.starts)


class Commit(NamedTuple):
    epoch: int
    claim: int
    word: int


class State(NamedTuple):
    """Shape: `under_way` has the commit of each process, also of one that died since; `copy` is what a standby holds."""

    store: Kept
    processes: tuple[Process, Process]
    under_way: tuple[Commit | None, Commit | None] = (None, None)
    copy: Kept | None = None
    failed_over: bool = False


class Found(NamedTuple):
    """What an exploration found. Shape: `broken` is empty, or says what broke and the steps that led there."""

    states: int
    moves: Counter[str]
    accepted: int
    refused: int
    depth: int
    broken: tuple[str, ...]


@lru_cache
def own_end(age: int) -> int:
    """How long a node may act that was granted what it asked for so long ago: by the code that it runs."""
    lease = Lease(sent_at=-age, tried_at=0, lease_s=LEASE, margin_s=MARGIN, every_s=0.5, again_s=0.5)
    return max(0, int(lease.stops_at))


class Protocol:
    """The steps that can follow a state, for a set of checks. Shape: `without` names kinds of steps to leave out."""

    def __init__(self, checks: frozenset[str] = WHOLE, without: frozenset[str] = frozenset()) -> None:
        self.checks, self.without = checks, without
        self.accepted = self.refused = 0
        self.broken = ""

    def following(self, state: State) -> Iterator[tuple[str, State]]:
        for me in (0, 1):
            yield from self._process(state, me)
            yield from self._messages(state, me)
        yield "tick", tick(state)
        if state.copy is None and not state.failed_over:
            yield "copy", state._replace(copy=state.store)
        elif state.copy is not None:
            yield "failover", state._replace(store=state.copy, copy=None, failed_over=True)

    def _process(self, state: State, me: int) -> Iterator[tuple[str, State]]:
        """What a process does by itself."""
        own, store = state.processes[me], state.store
        if not own.epoch:
            if own.starts:
                yield "register", self._register(state, me)
            return
        yield "crash", changed(state, me, own.stopped())
        if own.left <= 0:
            yield "stop", changed(state, me, own.stopped())
        if own.age < 0:
            yield "renew", changed(state, me, own._replace(age=0, answer=""))
        other = row_of(store, state.processes[1 - me].epoch)
        if other is not None and other.live and other.left < 0:
            yield "fence", with_row(state, other._replace(live=False))
        if not own.word and self._may_claim(store, own):
            word = fresh(state)
            taken = store._replace(owner=own.epoch, word=word, by=(own.epoch, own.claim, word))
            yield "claim", changed(state._replace(store=taken), me, own._replace(word=word))
            yield "claim, answer lost", state._replace(store=taken)
        if own.acts and state.under_way[me] is None:
            yield "decide", sent(state, me, Commit(own.epoch, own.claim, own.word))
        row = row_of(store, own.epoch)
        if row is not None and row.live and row.claim == own.claim and store.owner == own.epoch:
            free = store._replace(owner=NOBODY, word=0)
            yield "release", changed(state._replace(store=free), me, own._replace(word=0))

    def _messages(self, state: State, me: int) -> Iterator[tuple[str, State]]:
        """What arrives, or is lost."""
        own = state.processes[me]
        if own.age >= 0:
            if not own.answer:
                yield from self._renewal(state, me)
            else:
                yield "answer", self._answered(state, me)
            yield "renewal lost", changed(state, me, own._replace(age=-1, answer=""))
        commit = state.under_way[me]
        if commit is not None:
            yield "commit lost", sent(state, me, None)
            if self._accepts(state.store, commit):
                if state.store.by != tuple(commit):
                    self.broken = f"{commit} is accepted after the claim of {state.store.by}"
                yield "commit accepted", sent(state, me, None)
            else:
                refused = sent(state, me, None)
                if own[1:3] == commit[:2]:
                    refused = changed(refused, me, own.stopped())
                yield "commit refused", refused

    def _register(self, state: State, me: int) -> State:
        own, store, claim = state.processes[me], state.store, fresh(state)
        row = Row(store.next, claim, LEASE, True)
        kept = store._replace(rows=(*store.rows, row), next=store.next + 1)
        joined = Process(own.starts - 1, row.epoch, claim, own_end(0))
        return changed(state._replace(store=kept), me, joined)

    def _may_claim(self, store: Kept, own: Process) -> bool:
        mine = row_of(store, own.epoch)
        if mine is None or mine.claim != own.claim or not mine.live:
            return False
        held = row_of(store, store.owner)
        if held is None or not held.live:
            return True
        return ORDER not in self.checks and held.left < 0 and held is not mine

    def _renewal(self, state: State, me: int) -> Iterator[tuple[str, State]]:
        own = state.processes[me]
        row = row_of(state.store, own.epoch)
        if row is None or not row.live or row.claim != own.claim:
            yield "renewal refused", changed(state, me, own._replace(answer="no"))
        else:
            renewed = with_row(state, row._replace(left=LEASE))
            yield "renewal granted", changed(renewed, me, own._replace(answer="yes"))

    def _answered(self, state: State, me: int) -> State:
        own = state.processes[me]
        if own.answer == "no":
            return changed(state, me, own.stopped())
        left = max(own.left, own_end(own.age if SENT in self.checks else 0))
        return changed(state, me, own._replace(age=-1, answer="", left=left))

    def _accepts(self, store: Kept, commit: Commit) -> bool:
        row = row_of(store, commit.epoch)
        if CLAIM in self.checks and (row is None or row.claim != commit.claim):
            return False
        if ALIVE in self.checks and (row is None or not row.live):
            return False
        if HELD in self.checks and store.owner != commit.epoch:
            return False
        return not {HELD, CLAIM} <= self.checks or store.word == commit.word


def explore(protocol: Protocol, depth: int, starts: tuple[int, int] = (2, 1)) -> Found:
    """Every state that can be reached in so many steps; ends at the first that is broken."""
    first = State(Kept(), (Process(starts[0]), Process(starts[1])))
    came: dict[State, tuple[State | None, str]] = {first: (None, "")}
    moves: Counter[str] = Counter()
    layer, reached = [first], 0
    for reached in range(1, depth + 1):
        following: list[State] = []
        for state in layer:
            for name, raw in protocol.following(state):
                if name in protocol.without:
                    continue
                moves[name] += 1
                broken = protocol.broken or _both_act(raw)
                if broken:
                    path = (*_path(came, state), name, broken)
                    return _found(came, moves, reached, path)
                after = tidy(raw, dead=ALIVE not in protocol.checks)
                if after not in came:
                    came[after] = (state, name)
                    following.append(after)
        layer = following
        if not layer:
            break
    return _found(came, moves, reached, ())


def _found(
    came: dict[State, tuple[State | None, str]], moves: Counter[str], depth: int, path: tuple[str, ...]
) -> Found:
    return Found(len(came), moves, moves["commit accepted"], moves["commit refused"], depth, path)


def _both_act(state: State) -> str:
    one, two = state.processes
    return "both act on the shard" if one.acts and two.acts and not state.failed_over else ""


def _path(came: dict[State, tuple[State | None, str]], state: State) -> list[str]:
    names: list[str] = []
    at: State | None = state
    while at is not None:
        at, name = came[at]
        names.append(name)
    return names[-2::-1]


def tick(state: State) -> State:
    """Time goes on, everywhere at once."""
    return state._replace(
        store=_older(state.store),
        copy=None if state.copy is None else _older(state.copy),
        processes=(_waited(state.processes[0]), _waited(state.processes[1])),
    )


def _older(store: Kept) -> Kept:
    return store._replace(rows=tuple(row._replace(left=max(-1, row.left - 1)) for row in store.rows))


def _waited(own: Process) -> Process:
    return own._replace(left=max(0, own.left - 1), age=own.age if own.age < 0 else min(LEASE, own.age + 1))


def row_of(store: Kept, epoch: int) -> Row | None:
    return next((row for row in store.rows if row.epoch == epoch), None)


def with_row(state: State, new: Row) -> State:
    rows = tuple(new if row.epoch == new.epoch else row for row in state.store.rows)
    return state._replace(store=state.store._replace(rows=rows))


def changed(state: State, me: int, own: Process) -> State:
    one, two = state.processes
    return state._replace(processes=(own, two) if me == 0 else (one, own))


def sent(state: State, me: int, commit: Commit | None) -> State:
    one, two = state.under_way
    return state._replace(under_way=(commit, two) if me == 0 else (one, commit))


def _words(state: State) -> Iterator[int]:
    """Every random word in a state, in a fixed order."""
    for store in (state.store, state.copy):
        if store is not None:
            yield from (row.claim for row in store.rows)
            yield store.word
            yield from store.by[1:]
    for own in state.processes:
        yield from (own.claim, own.word)
    for commit in state.under_way:
        if commit is not None:
            yield from commit[1:]


def fresh(state: State) -> int:
    """A word that nobody has: it is never given twice, whatever the store forgot."""
    return max(_words(state)) + 1


def tidy(state: State, *, dead: bool = True) -> State:
    """One state for all that differ in nothing that matters: words are named by where they are first found, processes
    stand in an order, and dead nodes are left out unless a check looks at them (no node is one that is dead)."""
    if _order(state, 1) < _order(state, 0):
        state = state._replace(processes=state.processes[::-1], under_way=state.under_way[::-1])
    if not dead:
        copy = None if state.copy is None else _living(state.copy)
        state = state._replace(store=_living(state.store), copy=copy)
    names = {0: 0}
    for word in _words(state):
        names.setdefault(word, len(names))
    if all(old == new for old, new in names.items()):
        return state

    def store_of(store: Kept) -> Kept:
        rows = tuple(row._replace(claim=names[row.claim]) for row in store.rows)
        by = (store.by[0], names[store.by[1]], names[store.by[2]])
        return store._replace(rows=rows, word=names[store.word], by=by)

    one, two = (own._replace(claim=names[own.claim], word=names[own.word]) for own in state.processes)
    first, second = (
        None if commit is None else Commit(commit.epoch, names[commit.claim], names[commit.word])
        for commit in state.under_way
    )
    copy = None if state.copy is None else store_of(state.copy)
    return State(store_of(state.store), (one, two), (first, second), copy, state.failed_over)


def _living(store: Kept) -> Kept:
    return store if all(row.live for row in store.rows) else store._replace(rows=tuple(r for r in store.rows if r.live))


def _order(state: State, place: int) -> tuple[int, ...]:
    own, commit = state.processes[place], state.under_way[place]
    return (own.epoch, own.starts, own.word, own.left, own.age, 0 if commit is None else commit.epoch)
