"""Small builders of valid synthetic histories, and of the rows that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec

from perdure.kernel.audit import ReplayResult, Subject
from perdure.kernel.fold import fold
from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.graph import GraphDefinition, Node, StepRef
from perdure.model.run import NO_WAIT, Life, RunRow, Wait

Raw = msgspec.Raw
T0 = 1_700_000_000_000_000
SECOND = 1_000_000
ONE = Raw(b"1")
_NUMBERS = count(1)


def chained(facts: Sequence[f.AnyFact]) -> list[f.Recorded]:
    """The facts as a history: numbered from 1, encoded, chained."""
    recorded, head = [], f.CHAIN_START
    for seq, fact in enumerate(facts, 1):
        body = f.encode_fact(fact)
        head = f.chain(head, body)
        recorded.append(f.Recorded(seq, body, head, f.decode_fact(body)))
    return recorded


class History:
    """A history under construction. Shape: time goes on by a second a fact; each thing asked for counts one."""

    def __init__(self, run: str = "r1", **started: Any) -> None:
        self.run = run
        self.facts: list[f.AnyFact] = []
        self.at = T0
        self.asked = (0, 0)
        self.replay_asked: dict[int, tuple[int, int]] = {}
        self.keys: dict[str, int] = {}
        self.asks: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.epoch = 1
        given = {
            "workflow": "w",
            "version": "1",
            "definition": "d",
            "input": Raw(b"{}"),
            "seed": 7,
            "python": "3",
            "perdure": "0",
        }
        self.add(f.RunStarted, **(given | started))

    @property
    def seq(self) -> int:
        return len(self.facts)

    def add(self, kind: Callable[..., f.AnyFact], asks: Sequence[str] = (), **fields: Any) -> History:
        """Add a fact, in whose turn these keys are asked for."""
        self.at += SECOND
        self.facts.append(kind(self.at, *self.asked, **fields))
        return self.ask(*asks)

    def ask(self, *keys: str) -> History:
        """Ask for these keys in the turn of the last fact."""
        for key in keys:
            digest = f.ask_digest(b"task", key, b"[]")
            self.asks[key] = digest
            self.asked = (self.asked[0] + 1, (self.asked[1] + digest) % 2**64)
            self.keys[key] = self.seq
        self.replay_asked[self.seq] = self.asked
        return self

    def done(self, key: str, result: bytes = b"1", asks: Sequence[str] = (), **fields: Any) -> History:
        attempt = self.failures.pop(key, 0) + 1
        return self.add(
            f.StepCompleted,
            asks,
            key=key,
            attempt=attempt,
            epoch=self.epoch,
            asked_seq=self.keys[key],
            ask=self.asks[key],
            result=Raw(result),
            **fields,
        )

    def fails(
        self, key: str, retry_in: int | None = 1, asks: Sequence[str] = (), kind: Any = "error", **fields: Any
    ) -> History:
        attempt = self.failures[key] = self.failures.get(key, 0) + 1
        retry_at = None if retry_in is None else self.at + SECOND + retry_in
        return self.add(
            f.AttemptFailed,
            asks,
            key=key,
            attempt=attempt,
            epoch=self.epoch,
            asked_seq=self.keys[key],
            ask=self.asks[key],
            failure=Failure("ValueError", "no", kind, attempt, step=key),
            retry_at=retry_at,
            **fields,
        )

    def child(self, key: str, child: str, status: Any = "completed", asks: Sequence[str] = ()) -> History:
        result = ONE if status == "completed" else f.NULL
        failure = None if status == "completed" else Failure("ValueError", "no")
        return self.add(
            f.ChildEnded,
            asks,
            key=key,
            child=child,
            status=status,
            asked_seq=self.keys[key],
            ask=self.asks[key],
            result=result,
            failure=failure,
        )

    def skip(self, key: str, reason: Any = "condition") -> History:
        return self.add(f.StepSkipped, key=key, reason=reason)

    def signal(self, name: str, request: str, value: bytes = b"1", asks: Sequence[str] = ()) -> History:
        return self.add(f.SignalReceived, asks, name=name, value=Raw(value), request=request)

    def timer(self, key: str, asks: Sequence[str] = ()) -> History:
        return self.add(f.TimerFired, asks, key=key, due=self.at + SECOND)

    def completes(self, result: bytes = b"1") -> History:
        return self.add(f.RunCompleted, result=Raw(result))

    def run_fails(self) -> History:
        return self.add(f.RunFailed, failure=Failure("ValueError", "no"))

    def retried(self, keep: int, request: str = "retry", kept: Sequence[str] = (), asks: Sequence[str] = ()) -> History:
        """The next generation. `kept` are keys asked for in what is kept."""
        generation = 2 + sum(isinstance(fact, f.RunRetried | f.RunContinued) for fact in self.facts)
        if keep:
            self.asked = self.replay_asked[keep]
        else:
            self.asked = (0, 0)
        self.keys = {key: seq for key, seq in self.keys.items() if key in kept}
        self.failures.clear()
        return self.add(f.RunRetried, asks, generation=generation, keep=keep, by="ann", why="again", request=request)

    def continued(self, signals: Any = (), owed: Any = (), asks: Sequence[str] = ()) -> History:
        generation = 2 + sum(isinstance(fact, f.RunRetried | f.RunContinued) for fact in self.facts)
        self.keys.clear()
        self.failures.clear()
        self.add(
            f.RunContinued,
            input=Raw(b"{}"),
            generation=generation,
            seed=8,
            signals=list(signals),
            owed=list(owed),
            variables=Raw(b"{}"),
        )
        self.asked = (0, 0)
        self.replay_asked.clear()
        return self.ask(*asks)

    def subject(self, wait: Wait = NO_WAIT, *, graph: GraphDefinition | None = None, **given: Any) -> Subject:
        """The subject of an audit, with the row and the replay that fit."""
        recorded = chained(self.facts)
        ended = {r.fact.key for r in recorded if hasattr(r.fact, "key")}
        replay = ReplayResult(
            asked=self.replay_asked,
            keys=dict(self.keys),
            open=frozenset(self.keys.keys() - ended),
            limits={},
            wait=wait,
        )
        row = row_of(recorded, self.run, wait, self.asked, graph is not None)
        return Subject(
            row=row, facts=recorded, graph=graph, **({"replay": replay, "epochs": frozenset({1, 2, 3})} | given)
        )


def row_of(
    recorded: Sequence[f.Recorded],
    run: str = "r1",
    wait: Wait = NO_WAIT,
    asked: tuple[int, int] = (0, 0),
    graph: bool = False,
) -> RunRow:
    """The row that is the fold of this history."""
    folded = fold(recorded, graph=graph, illegal=[])
    started = folded.started
    return RunRow(
        id=run,
        no=1,
        workflow=started.workflow if started else "w",
        version="1",
        definition="d",
        input_hash=b"",
        life=folded.life,
        seq=folded.seq,
        head=folded.head,
        asked_n=asked[0],
        asked_h=asked[1],
        generation=folded.generation,
        epoch=folded.epoch or 1,
        wait=wait,
        variables=b"{}",
        tags={},
        outcome=None if folded.outcome is None else msgspec.json.encode(folded.outcome),
        parent=started.parent if started else "",
        parent_key=started.parent_key if started else "",
        source="",
        created_at=T0,
        updated_at=recorded[-1].fact.at if recorded else T0,
        ended_at=folded.ended_at,
    )


def plain_row(id: str, life: Life = Life.LIVE, **given: Any) -> RunRow:
    """A row without a history at hand."""
    ended = life.ended
    fields: dict[str, Any] = {
        "id": id,
        "no": next(_NUMBERS),
        "workflow": "w",
        "version": "1",
        "definition": "d",
        "input_hash": b"",
        "life": life,
        "seq": 0 if life is Life.QUEUED else 3,
        "head": b"",
        "asked_n": 0,
        "asked_h": 0,
        "generation": 1,
        "epoch": 1,
        "wait": NO_WAIT if ended or life is Life.QUEUED else Wait(open=1),
        "variables": b"{}",
        "tags": {},
        "outcome": b'{"result":1}' if ended or life is Life.ATTENTION else None,
        "parent": "",
        "parent_key": "",
        "source": "",
        "created_at": T0,
        "updated_at": T0,
        "ended_at": T0 if ended else None,
    }
    return RunRow(**(fields | given))


def node(name: str, *needs: str, **given: Any) -> Node:
    """A node whose arguments are the results of others."""
    return Node(name=name, task=name, args={f"p{i}": StepRef(need) for i, need in enumerate(needs)}, **given)


def graph_of(*nodes: Node, parameters: tuple[str, ...] = ()) -> GraphDefinition:
    return GraphDefinition(name="g", version="1", parameters=parameters, nodes=nodes)
