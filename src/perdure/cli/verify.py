"""`perdure verify`: the four conditions over a run's history, or over all of a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from perdure.authoring.registry import Registry
from perdure.cli.loading import registry_of
from perdure.cli.options import Session, awaited, command
from perdure.cli.output import put, put_json, say, style
from perdure.errors import PerdureError, StoreDamaged
from perdure.kernel.audit import CONDITIONS, AuditReport, audit_store
from perdure.kernel.audit_report import Check
from perdure.model.run import RunRow
from perdure.runtime.verify import verify_run
from perdure.settings import Settings
from perdure.state.sqlite import SqliteStore
from perdure.state.sqlite_health import unheard_in
from perdure.state.store import Query, Store

PAGE = 500
# An engine beside us moves runs while they are looked at: what seems broken is looked at again.
LOOKS = 4


@command(
    "verify",
    "Check that what happened is correct.",
    as_json=True,
    examples="perdure verify order-42\nperdure verify --all --no-replay",
)
@click.argument("run", required=False)
@click.option("--all", "every", is_flag=True, help="All runs, and how they refer to each other (the default).")
@click.option(
    "--replay/--no-replay", default=True, help="Run the workflow's code from its source file over the history."
)
def verify(session: Session, run: str | None, every: bool, replay: bool) -> int:
    """Check that what happened is correct: complete, in order, atomic and consistent.

    Prints each condition with what was checked, and each violation with the fact that shows it; exits with 3 where
    there is one. The code is replayed where the file that a run was started from is still there.
    """
    if run is not None and every:
        raise click.UsageError("either RUN or --all")

    async def look() -> Findings:
        async with session.client() as client:
            if run is None:
                return await audit_all(client.store, client.settings, replay=replay)
            findings = Findings()
            await findings.look(client.store, client.settings, await client.row(run), Sources(replay))
            return findings

    findings = awaited(look())
    if session.json:
        put_json({"ok": findings.ok, **findings.data()})
    else:
        for line in findings.lines(whole=run is not None):
            put(line)
    return 0 if findings.ok else 3


class Sources:
    """The code of runs, by the file that they were started from. Shape: `missing` tells why a file gave none."""

    def __init__(self, replay: bool) -> None:
        self.replay = replay
        self.known: dict[str, Registry] = {}
        self.missing: dict[str, str] = {}

    def code_of(self, row: RunRow) -> Registry:
        """Empty where the code is not known here."""
        if not self.replay or not row.source:
            return Registry()
        if row.source not in self.known:
            try:
                self.known[row.source] = registry_of([row.source])
            except PerdureError as error:
                self.known[row.source] = Registry()
                self.missing[row.source] = str(error)
                say(f"the code is not replayed: {error}")
        return self.known[row.source]


class Findings:
    """What was found. Shape: `reports` in the order of looking, the store's own last."""

    def __init__(self) -> None:
        self.reports: list[AuditReport] = []
        self.replayed = 0

    @property
    def ok(self) -> bool:
        return all(report.ok for report in self.reports)

    async def look(self, store: Store, settings: Settings, row: RunRow, sources: Sources) -> None:
        """Audit one run; what seems broken while an engine moves it is looked at again."""
        code = sources.code_of(row)
        self.replayed += code.workflow(row.workflow, row.version) is not None
        report = await _audited(store, code, settings, row.id)
        for _ in range(LOOKS):
            if report.ok:
                break
            report = await _audited(store, code, settings, row.id)
        self.reports.append(report)

    def lines(self, *, whole: bool = False) -> Iterator[str]:
        """For people: all of a report that is asked for or broken, a summary of the rest."""
        for report in self.reports:
            if whole or not report.ok:
                yield from (_painted(line) for line in report.lines())
        if not whole:
            yield from self._summary()

    def _summary(self) -> Iterator[str]:
        for condition in CONDITIONS:
            checks = [check for report in self.reports for check in report.of(condition)]
            broken = sum(check.broken for check in checks)
            verdict = f"{broken:,} violations" if broken else "holds"
            yield _painted(f"  {condition}: {verdict} ({sum(check.checked for check in checks):,} checked)")
        runs = sum(report.subject != "store" for report in self.reports)
        wrong = sum(not report.ok for report in self.reports)
        verdict = f"{wrong:,} not correct" if wrong else "all correct"
        yield f"{runs:,} run{'s' * (runs != 1)}: {verdict}; the code of {self.replayed:,} was replayed"

    def data(self) -> dict[str, Any]:
        return {"replayed": self.replayed, "reports": [_report_data(report) for report in self.reports]}


async def _audited(store: Store, code: Registry, settings: Settings, run: str) -> AuditReport:
    """The audit of one run; a history that cannot be read at all is a violation too, and hides no other run's."""
    try:
        return await verify_run(store, code, settings, run)
    except StoreDamaged as error:
        check = Check("consistency", "K4 each fact can be read", checked=1)
        check.add(None, str(error))
        return AuditReport(f"run {run}", (check,))


async def audit_all(store: Store, settings: Settings, *, replay: bool) -> Findings:
    """Every run of a store, the oldest first, and how they refer to each other."""
    findings, sources = Findings(), Sources(replay)
    rows: list[RunRow] = []
    while True:
        page = await store.find(Query(order="old", limit=PAGE, after=rows[-1] if rows else None))
        rows.extend(page)
        for row in page:
            await findings.look(store, settings, row, sources)
        if len(page) < PAGE:
            break
    findings.reports.append(await _store_report(store))
    return findings


async def _store_report(store: Store) -> AuditReport:
    report = await _look_at_store(store)
    for _ in range(LOOKS):
        if report.ok:
            break
        report = await _look_at_store(store)
    return report


async def _look_at_store(store: Store) -> AuditReport:
    rows: list[RunRow] = []
    while True:
        page = await store.find(Query(order="old", limit=PAGE, after=rows[-1] if rows else None))
        rows.extend(page)
        if len(page) < PAGE:
            break
    inbox: dict[str, int] = {}
    after = 0
    while waiting := await store.inbox(after, PAGE):
        after = waiting[-1].no
        for one in waiting:
            inbox[one.message.run] = inbox.get(one.message.run, 0) + 1
    known: Any = store
    unheard = await unheard_in(store) if isinstance(store, SqliteStore) else []
    parents = {row.parent for row in rows if row.parent} - {row.id for row in rows}
    removed = await known.tombstones(sorted(parents)) if parents else {}
    return audit_store(rows, inbox=inbox, unheard=unheard, removed=set(removed))


def _painted(line: str) -> str:
    if "BAD" in line or "BROKEN" in line or "violation" in line:
        return style(line, fg="red")
    return style(line, dim=True) if line.startswith("    ok") else line


def _report_data(report: AuditReport) -> dict[str, Any]:
    return {
        "subject": report.subject,
        "ok": report.ok,
        "conditions": {
            condition: [
                {"check": check.name, "checked": check.checked, "broken": check.broken, "violations": check.violations}
                for check in report.of(condition)
            ]
            for condition in CONDITIONS
        },
    }
