"""Valid histories of every shape, which the audit finds correct and which the mutation tests then break."""

from __future__ import annotations

import msgspec

from perdure.kernel.audit import Subject
from perdure.model import fact as f
from perdure.model.graph import Condition, InputRef
from perdure.model.run import Life, Wait
from tests.kernel.audit_builders import ONE, SECOND, T0, History, Raw, graph_of, node, plain_row


def flow() -> Subject:
    """A flow with retries, a signal, timers, a child, a crash, a patch; completed."""
    history = History(request="start").ask("a#1", "b#1").fails("a#1").done("b#1", asks=["c#1"])
    history.signal("go", "q1").timer("timer#1").timer("timer#2").add(f.PatchTaken, id="p").signal("go", "q2")
    history.epoch = 2
    history.add(f.RunRecovered, epoch=2, node="n2", due=["a#1"])
    history.add(f.IntentRecorded, key="a#1", attempt=2, epoch=2, ask=history.asks["a#1"])
    history.done("a#1").child("c#1", "kid").completes(b'{"x":1}')
    child = plain_row(
        "kid", Life.COMPLETED, parent="r1", parent_key="c#1", created_at=T0 + 5 * SECOND, ended_at=T0 + SECOND * 12
    )
    subject = history.subject(children={"kid": child}, acknowledged=frozenset({"start", "q1"}), answers={"q1": "r1"})
    assert subject.replay is not None
    subject.replay.limits = {"a#1": 3, "b#1": 1}
    return subject


def live() -> Subject:
    """A flow that waits for a step, a retry, a child and a signal."""
    history = History().ask("a#1", "b#1", "c#1").fails("b#1", 60 * SECOND)
    wait = Wait(history.at + 60 * SECOND, ("go",), ("kid",), 1, 1)
    child = plain_row("kid", Life.LIVE, parent="r1", parent_key="c#1")
    return history.subject(wait, children={"kid": child})


def compensated() -> Subject:
    """A flow that failed, undid what it owed in reverse order, and was retried."""
    history = History().ask("pay#1", "book#1", "ship#1").done("pay#1", args=ONE).done("book#1", args=ONE)
    history.fails("ship#1", None, asks=["undo:book#1"]).done("undo:book#1", asks=["undo:pay#1"])
    history.fails("undo:pay#1").done("undo:pay#1").run_fails()
    history.retried(1, kept=["pay#1", "book#1", "ship#1"]).done("pay#1", args=ONE).done("book#1", args=ONE)
    return history.done("ship#1").completes().subject()


def cancelled() -> Subject:
    """A flow whose step timed out after its cancel, and was undone with an unknown result."""
    history = History().ask("pay#1").add(f.CancelRequested, reason="enough", request="q")
    history.fails("pay#1", None, kind="timeout", args=ONE, asks=["undo:pay#1"]).done("undo:pay#1")
    return history.add(f.RunCancelled, reason="enough").subject()


def continued() -> Subject:
    """A flow that continued as new with a signal and a compensation, and then failed."""
    history = (
        History().ask("pay#1").done("pay#1", args=ONE).signal("go", "q1").signal("go", "q2", b"2").signal("no", "q3")
    )
    owed = f.Owed("pay#1", 1, "pay", ONE, ONE)
    history.continued([("go", Raw(b"2")), ("no", ONE)], [owed], asks=["ship#1"]).fails(
        "ship#1", None, asks=["undo:pay#1@1"]
    )
    return history.done("undo:pay#1@1").run_fails().subject()


def resolved() -> Subject:
    """A flow whose step needed attention twice: a person had it tried again, then gave the result."""
    history = History().ask("a#1").add(f.IntentRecorded, key="a#1", attempt=1, epoch=1, ask=0)
    history.add(f.AttentionSet, cause="outcome_unknown", reason="who knows", step="a#1").add(
        f.RunResumed, by="ann", why=""
    )
    history.add(f.StepResolved, key="a#1", how="retry", request="q1").fails("a#1")
    history.add(f.AttentionSet, cause="outcome_unknown", reason="again", step="a#1").add(f.RunResumed, by="ann", why="")
    history.add(f.StepResolved, key="a#1", how="result", result=ONE, request="q2")
    return history.completes().subject()


def attention() -> Subject:
    """A run that needs attention, because its code asks for something else."""
    history = History().ask("a#1").add(f.AttentionSet, cause="nondeterminism", reason="asks for b#1", step="a#1")
    subject = history.subject()
    assert subject.replay is not None
    subject.replay.ok, subject.replay.mismatch = False, "asks for b#1"
    return subject


def graph() -> Subject:
    """A graph with a condition, a fan-out, a child and every join rule; completed."""
    definition = graph_of(
        node("read"),
        node("check", "read"),
        node("parts", "read", map="p0"),
        node("extra", "check", when=Condition(("check",), cel="check > 1")),
        node("more", "extra"),
        node("flaky", "read"),
        node("load", "parts", "check"),
        node("sum", "flaky", "load", join="any"),
        node("two", "flaky", "load", "check", join=2),
        node("report", "load", "more", "flaky", join="done", child=True),
        node("same", "parts", map="p0"),
        parameters=("day",),
    )
    history = History().ask("read").done("read", b"[1,2]", asks=["check", "parts[0]", "parts[1]", "flaky"])
    history.done("parts[1]").done("check").skip("extra").skip("more", "dependency").fails("flaky").done("parts[0]")
    history.ask("load", "same[0]", "same[1]").done("same[0]").done("load", asks=["sum", "two"])
    history.fails("flaky", None, asks=["report"]).done("two").done("sum").done("same[1]").child("report", "kid")
    child = plain_row("kid", Life.COMPLETED, parent="r1", parent_key="report", created_at=T0 + 30 * SECOND, ended_at=T0)
    return history.completes().subject(graph=definition, children={"kid": child})


def graph_retried() -> Subject:
    """A graph that failed and was retried: it keeps one success, makes the failure again, undoes nothing."""
    definition = graph_of(node("a"), node("b"), node("c", "a", "b"))
    history = History().ask("a", "b").done("a").fails("b", None).skip("c", "failed").run_fails()
    history.retried(0, kept=["a"], asks=["b"]).done("b", asks=["c"]).done("c")
    return history.completes().subject(graph=definition)


def graph_over_input() -> Subject:
    """A graph that fans out over its input and over an empty list."""
    definition = graph_of(
        msgspec.structs.replace(node("each", map="p"), args={"p": InputRef("items")}),
        node("none"),
        node("empty", "none", map="p0"),
        node("after", "empty"),
        parameters=("items",),
    )
    history = History(input=Raw(b'{"items":[1,2,3]}')).ask("each[0]", "each[1]", "each[2]", "none")
    history.done("none", b"[]", asks=["after"]).done("each[2]").done("each[0]").done("after").done("each[1]")
    return history.completes().subject(graph=definition)


def queued() -> Subject:
    """A run whose start was acknowledged and not yet folded."""
    return Subject(row=plain_row("r1", Life.QUEUED), facts=[])


def forked() -> Subject:
    """A fork: its copied facts carry digests and requests of the run that they stem from."""
    history = History(fork_of="r0", fork_at=2, request="q0").ask("a#1").done("a#1", asks=["b#1"])
    history.facts[1].asked_h = 99
    return history.done("b#1").completes().subject(answers={"q0": "r0"})


CASES = (
    flow,
    live,
    compensated,
    cancelled,
    continued,
    resolved,
    attention,
    graph,
    graph_retried,
    graph_over_input,
    queued,
    forked,
)
