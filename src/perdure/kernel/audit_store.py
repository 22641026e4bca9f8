"""The conditions that only a whole store can break: references between runs, and waits that go in a circle."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from perdure.kernel.audit_completeness import wake_sources
from perdure.kernel.audit_report import AuditReport, Check
from perdure.model.run import Life, RunRow


def audit_store(
    rows: Iterable[RunRow],
    *,
    inbox: Mapping[str, int] | None = None,
    unheard: Collection[str] = (),
    removed: Collection[str] = (),
) -> AuditReport:
    """Check all rows of a store against each other.

    Shape: `inbox` counts waiting messages by run, `unheard` says what is wrong with others, `removed` are ids of which only a tombstone is left.
    """
    listed = list(rows)
    runs = {row.id: row for row in listed}
    checks = (
        _woken(runs, inbox or {}),
        _heard(inbox or {}, unheard),
        _circles(runs),
        _unique(listed, removed),
        _parents(runs, removed),
        _children(runs),
        _lives(runs),
    )
    return AuditReport("store", checks)


def _woken(runs: Mapping[str, RunRow], inbox: Mapping[str, int]) -> Check:
    check = Check("completeness", "L1 something will wake every run that has not ended")
    children: dict[str, RunRow | None] = {}
    for row in runs.values():
        if row.life in {Life.QUEUED, Life.LIVE}:
            children = {one: runs.get(one) for one in row.wait.children}
            woken = wake_sources(row, children, inbox.get(row.id, 0))
            check.hold(bool(woken), None, f"nothing will ever wake run {row.id}: its wait is {row.wait}")
    return check


def _heard(inbox: Mapping[str, int], unheard: Collection[str]) -> Check:
    check = Check("completeness", "C2 every message that waits can be read", sum(inbox.values()) + len(unheard))
    for why in unheard:
        check.add(None, why)
    return check


def _circles(runs: Mapping[str, RunRow]) -> Check:
    """No run waits for itself through its children, and none is its own ancestor."""
    check = Check("completeness", "L1 no runs wait for each other in a circle")
    waits = {row.id: row.wait.children for row in runs.values() if not row.life.ended}
    parents = {row.id: (row.parent,) for row in runs.values() if row.parent}
    for edges, what in ((waits, "wait for each other"), (parents, "are each other's parents")):
        check.checked += len(edges)
        for circle in circles(edges):
            check.add(None, f"runs {what} in a circle: {' -> '.join(circle)}")
    return check


def circles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """One circle for each group of ids that reach themselves, as the ids along it with the first repeated."""
    found: list[list[str]] = []
    done: set[str] = set()
    for root in edges:
        path: list[str] = []
        place: dict[str, int] = {}
        stack = [] if root in done else [(root, iter(edges[root]))]
        if stack:
            place[root] = 0
            path.append(root)
        while stack:
            at, rest = stack[-1]
            child = next(rest, None)
            if child is None:
                stack.pop()
                path.pop()
                del place[at]
                done.add(at)
            elif child in place:
                found.append([*path[place[child] :], child])
            elif child in edges and child not in done:
                place[child] = len(path)
                path.append(child)
                stack.append((child, iter(edges[child])))
    return found


def _unique(rows: list[RunRow], removed: Collection[str]) -> Check:
    check = Check("consistency", "K6 ids and numbers are unique over all time")
    ids: set[str] = set(removed)
    numbers: set[int] = set()
    for row in rows:
        check.hold(row.id not in ids, None, f"run id {row.id} is used twice")
        if row.no in numbers:
            check.add(None, f"run {row.id} has number {row.no}, which another has too")
        ids.add(row.id)
        numbers.add(row.no)
    return check


def _parents(runs: Mapping[str, RunRow], removed: Collection[str]) -> Check:
    check = Check("consistency", "K6 every parent exists")
    for row in runs.values():
        if row.parent:
            there = row.parent in runs or row.parent in removed
            check.hold(there, None, f"run {row.id} names the parent {row.parent}, which is not in the store")
    return check


def _children(runs: Mapping[str, RunRow]) -> Check:
    check = Check("consistency", "K6 every child that is waited for exists")
    for row in runs.values():
        for one in row.wait.children:
            check.hold(one in runs, None, f"run {row.id} waits for child run {one}, which is not in the store")
    return check


def _lives(runs: Mapping[str, RunRow]) -> Check:
    """A row's life, end and outcome go together."""
    check = Check("consistency", "K2 life, end and outcome go together")
    for row in runs.values():
        ended, told = row.life.ended, row.outcome is not None
        check.hold(
            (row.ended_at is not None) == ended,
            None,
            f"run {row.id} is {row.life.value}, and ended_at is {row.ended_at}",
        )
        if told != (ended or row.life is Life.ATTENTION):
            check.add(None, f"run {row.id} is {row.life.value} {'with' if told else 'without'} an outcome")
        if (row.seq == 0) != (row.life is Life.QUEUED):
            check.add(None, f"run {row.id} is {row.life.value} and has {row.seq} facts")
    return check
