"""The audit of valid histories: nothing is found, and the report says what was looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure.kernel.audit import CONDITIONS, AuditTail, Subject, audit
from tests.kernel.audit_cases import CASES, flow, graph


@pytest.mark.parametrize("case", CASES)
def test_a_valid_history_is_correct(case: Callable[[], Subject]) -> None:
    """Goal: no check cries wolf over a history that a correct engine may write."""
    report = audit(case())
    assert report.ok, "\n".join(report.lines())
    assert report.first is None
    assert report.lines()[0] == f"run {case().row.id}: correct"


@pytest.mark.parametrize("case", CASES)
def test_the_tail_finds_a_valid_history_correct(case: Callable[[], Subject]) -> None:
    """Goal: the incremental form agrees with the whole audit on what is correct."""
    subject = case()
    tail = AuditTail("r1", graph=subject.graph is not None)
    assert [violation for recorded in subject.facts for violation in tail.feed(recorded)] == []
    assert (tail.seq, tail.life) == (subject.row.seq, subject.row.life)


def test_every_condition_is_looked_at() -> None:
    """Goal: a report that says "holds" has looked; each check of a full history counts more than nothing."""
    flows, graphs = audit(flow()), audit(graph())
    checked: dict[str, int] = {}
    for check in (*flows.checks, *graphs.checks):
        checked[check.name] = checked.get(check.name, 0) + check.checked
    elsewhere = {
        "C1 what a failed run owed is undone",
        "C2 unread signals and owed compensations go over",
        "L1 something will wake a run that has not ended",
        "A1 at most one compensation for a success",
        "K6 the parent exists",
    }
    assert {name for name, count in checked.items() if not count} == elsewhere
    assert all(flows.of(condition) for condition in CONDITIONS)


def test_the_report_prints_every_condition_with_its_counts() -> None:
    """Goal: `perdure verify RUN` shows what was checked, and how much of it."""
    subject = flow()
    lines = audit(subject).lines()
    assert [line for line in lines if not line.startswith("    ")][1:] == [f"  {name}: holds" for name in CONDITIONS]
    assert f"    ok  O1 sequence numbers 1..n ({len(subject.facts)} checked)" in lines
