"""A run's story: each fact a sentence, in order, on one line, safe for a terminal."""

from __future__ import annotations

import typing

import msgspec
import pytest

from perdure.model import fact as f
from perdure.model.failure import Failure
from perdure.model.run import HistoryEntry
from perdure.model.text import escape
from perdure.monitoring.story import tell
from perdure.runtime.inspect import entry_of

SECOND = 1_000_000
BEGUN = 1_700_000_000 * SECOND
DOWN = Failure("app.BankDown", "the bank is away", attempts=2, step="charge#1")
Raw = msgspec.Raw


def at(seconds: float) -> tuple[int, int, int]:
    """What every fact begins with."""
    return BEGUN + round(seconds * SECOND), 0, 0


def micros(seconds: float) -> int:
    return BEGUN + round(seconds * SECOND)


# One fact of each kind, and what it is to be told as.
LIFE: list[tuple[f.AnyFact, str]] = [
    (f.RunStarted(*at(0), "fulfil", "2", "", Raw(b'[{"id":"a1"},5]'), 1, "3.11", "0.1"),
     'fulfil (version 2) was started with {"id":"a1"}, 5'),
    (f.IntentRecorded(*at(0.1), "charge#1", 1, 1, 1), "charge#1 is about to be tried, attempt 1"),
    (f.AttemptFailed(*at(1.3), "charge#1", 1, 1, 1, 1, DOWN, micros(3.3), "", micros(0.1)),
     "charge#1 failed after 1.2s: BankDown: the bank is away; tried again in 2s"),
    (f.RunRecovered(*at(4), 2, "host:12", ["charge#1", "reserve#1"]),
     "the engine before had died: host:12 took the run over (epoch 2); begun or due were charge#1, reserve#1"),
    (f.StepCompleted(*at(5), "charge#1", 2, 2, 1, 1, Raw(b'"pay-1"'), "", micros(4.5)),
     'charge#1 succeeded at attempt 2 after 500ms: "pay-1"'),
    (f.AttemptFailed(*at(6), "reserve#1", 1, 2, 1, 1, DOWN, None),
     "reserve#1 failed: BankDown: the bank is away; it is not tried again"),
    (f.StepSkipped(*at(6), "report", "condition"), "report was skipped: its condition is false"),
    (f.StepResolved(*at(7), "reserve#2", "result", Raw(b"3"), None, "ann"), "ann resolved reserve#2 with the result 3"),
    (f.StepResolved(*at(7), "reserve#3", "retry"), "a person resolved reserve#3 to be tried again"),
    (f.SignalReceived(*at(8), "approval", Raw(b'{"ok":true}'), "r-1"), 'signal approval came: {"ok":true}'),
    (f.TimerFired(*at(9), "timer#1", micros(9)), "timer#1 was due"),
    (f.TimerFired(*at(99), "timer#2", micros(39)), "timer#2 was due, 1m ago"),
    (f.ChildEnded(*at(10), "pack#1", "pack-x", "completed", 1, 1, Raw(b"1")), "child run pack-x (pack#1) completed: 1"),
    (f.ChildEnded(*at(10), "pack#2", "pack-y", "failed", 1, 1, f.NULL, DOWN),
     "child run pack-y (pack#2) failed: BankDown: the bank is away in step charge#1 (after 2 attempts)"),
    (f.PatchTaken(*at(11), "fix-1"), "the code of patch fix-1 is taken from here on"),
    (f.CancelRequested(*at(12), "not wanted", "r-2"), "cancelling was asked for: not wanted"),
    (f.RunContinued(*at(13), Raw(b"[1]"), 2, 1, [], [], Raw(b"{}")), "continued as new: generation 2 begins with 1"),
    (f.RunRetried(*at(14), 3, 4, "ann", "the bank is back", "r-3"),
     "retried by ann (the bank is back): generation 3 begins"),
    (f.AttentionSet(*at(15), "outcome_unknown", "nobody knows", "charge#1"),
     "the run needs attention (charge#1): nobody knows"),
    (f.RunResumed(*at(16), "ann", ""), "the run was resumed by ann"),
    (f.StepCompleted(*at(17), "undo:charge#1", 1, 2, 1, 1, Raw(b"null")), "charge#1 was undone"),
    (f.RunFailed(*at(18), DOWN), "the run failed: BankDown: the bank is away in step charge#1 (after 2 attempts)"),
    (f.RunCancelled(*at(18), ""), "the run was cancelled"),
    (f.RunCompleted(*at(18), Raw(b'{"payment":"pay-1"}')), 'the run completed: {"payment":"pay-1"}'),
]  # fmt: skip


def entries(facts: list[f.AnyFact]) -> list[HistoryEntry]:
    return [entry_of(seq, fact) for seq, fact in enumerate(facts, 1)]


@pytest.mark.parametrize("fact, told", LIFE, ids=[f"{type(fact).__name__}-{i}" for i, (fact, _) in enumerate(LIFE)])
def test_each_fact_is_told_in_one_plain_sentence(fact: f.AnyFact, told: str) -> None:
    """Goal: the words that a person reads are these."""
    (sentence,) = tell(entries([fact]))
    assert sentence.text == told


def test_no_kind_of_fact_is_left_untold() -> None:
    """Goal: a new kind of fact cannot be forgotten here."""
    kinds = {kind.__name__ for kind in typing.get_args(f.AnyFact)}
    assert {type(fact).__name__ for fact, _ in LIFE} == kinds


def test_a_story_keeps_order_numbers_and_times() -> None:
    """Goal: sentence n is fact n, at its time."""
    sentences = tell(entries([fact for fact, _ in LIFE]))
    assert [one.seq for one in sentences] == list(range(1, len(LIFE) + 1))
    assert [one.at for one in sentences] == [entry.at for entry in entries([fact for fact, _ in LIFE])]
    assert {one.kind for one in sentences} == {entry.kind for entry in entries([fact for fact, _ in LIFE])}


def test_f103_a_story_cannot_act_upon_a_terminal() -> None:
    """Goal: names, values, messages and reasons from outside are spelled out, and long ones cut."""
    evil = "\x1b[2J\r\n\x9b\u202e" * 200
    raw = Raw(msgspec.json.encode(evil))
    failure = Failure(evil, evil, step=evil)
    facts: list[f.AnyFact] = [
        f.RunStarted(*at(0), evil, evil, "", Raw(b"[" + raw + b"]"), 1, "", "", parent="p", parent_key=evil),
        f.AttemptFailed(*at(1), evil, 1, 1, 1, 1, failure, None),
        f.StepCompleted(*at(1), evil, 1, 1, 1, 1, raw),
        f.StepResolved(*at(1), evil, "result", raw, None, evil),
        f.SignalReceived(*at(1), evil, raw, evil),
        f.RunRecovered(*at(1), 1, evil, [evil] * 9),
        f.PatchTaken(*at(1), evil),
        f.CancelRequested(*at(1), evil, evil),
        f.RunRetried(*at(1), 2, 1, evil, evil, evil),
        f.AttentionSet(*at(1), "damaged", evil, evil),
        f.RunFailed(*at(1), failure),
    ]
    for sentence in tell(entries(facts)):
        assert sentence.text == escape(sentence.text)


def test_a_fork_and_a_child_say_where_they_come_from() -> None:
    """Goal: the first sentence names the run behind this one."""
    fork = f.RunStarted(*at(0), "w", "1", "", Raw(b"[]"), 1, "", "", fork_of="old", fork_at=7)
    child = f.RunStarted(*at(0), "w", "1", "", Raw(b"[]"), 1, "", "", parent="up", parent_key="w#1")
    told = [sentence.text for sentence in tell(entries([fork, child]))]
    assert told == [
        "forked from run old with its first 7 facts with no input",
        "w (version 1) was started by run up, as w#1, with no input",
    ]
