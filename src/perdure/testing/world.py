"""A world to run workflows in: the real engine on virtual time, over a store whose machine may die."""

from __future__ import annotations

from typing import Any

from perdure.kernel.audit_report import AuditReport
from perdure.model import fact as f
from perdure.model.duration import Duration
from perdure.model.run import RunRow, Status
from perdure.model.workflow import WorkflowSpec
from perdure.runtime.desk import Handle
from perdure.runtime.verify import verify_run
from perdure.state.store import Query
from perdure.testing.machine import Machine


class World(Machine):
    """A machine, and what a test asks of its runs.

    Shape: every method but `arun` drives the world's own loop, and time passes only in them.
    """

    # --- asking ------------------------------------------------------------------------------------

    def run(self, workflow: WorkflowSpec, *args: Any, id: str | None = None, **kwargs: Any) -> Any:
        """Start a run, let time pass until it has ended, and give its result. Raises: as `Handle.result`, and `AtRest`."""
        return self.play(self.arun(workflow, *args, id=id, **kwargs))

    async def arun(self, workflow: WorkflowSpec, *args: Any, id: str | None = None, **kwargs: Any) -> Any:
        """`run` for use within a scenario that the world plays."""
        self.serve(workflow)
        handle = await self.engine.start(workflow, *args, id=id, **kwargs)
        return await handle.result()

    def start(self, workflow: WorkflowSpec, *args: Any, **options: Any) -> Handle:
        """Start a run, and return as soon as that is acknowledged."""
        self.serve(workflow)
        return self.play(self.engine.start(workflow, *args, **options))

    def result(self, run: Handle | str) -> Any:
        """Let time pass until the run has ended."""
        return self.play(self.engine.result(_id(run)))

    def signal(self, run: Handle | str, name: str, value: Any = None, *, request_id: str | None = None) -> None:
        self.play(self.engine.signal(_id(run), name, value, request_id=request_id))

    def cancel(self, run: Handle | str, reason: str = "", *, force: bool = False) -> None:
        self.play(self.engine.cancel(_id(run), reason, force=force))

    def signal_at(self, delay: Duration, run: Handle | str, name: str, value: Any = None) -> None:
        """Signal a run when this time has passed; after a crash it is said again until it is acknowledged."""
        request = f"signal-{len(self._plan)}-{self.random.getrandbits(64):016x}"
        self.at(delay, lambda engine: engine.signal(_id(run), name, value, request_id=request))

    def cancel_at(self, delay: Duration, run: Handle | str, reason: str = "") -> None:
        """Cancel a run when this time has passed; after a crash it is said again until it is acknowledged."""
        request = f"cancel-{len(self._plan)}-{self.random.getrandbits(64):016x}"
        self.at(delay, lambda engine: engine.cancel(_id(run), reason, request_id=request))

    # --- looking -------------------------------------------------------------------------------------

    def row(self, run: Handle | str) -> RunRow:
        """The run as the store lists it."""
        return self.play(self.engine.row(_id(run)))

    def status(self, run: Handle | str) -> Status:
        return self.row(run).status

    def rows(self) -> list[RunRow]:
        """All runs, the oldest first."""
        return self.play(self.engine.store.find(Query(order="old", limit=10_000)))

    def history(self, run: Handle | str) -> list[f.AnyFact]:
        """The run's facts of all generations, decoded."""
        loaded = self.play(self.engine.store.load([_id(run)], whole=True))
        return [f.decode_fact(body) for _, body, _ in loaded[0].facts]

    def audit(self, run: Handle | str) -> AuditReport:
        """The four conditions over one run, its code replayed."""
        return self.play(verify_run(self.store, self.engine.catalogue, self.settings, _id(run)))

    def audit_all(self) -> list[str]:
        """What the audit finds wrong in any run; empty: nothing."""
        return [f"{row.id}: {found}" for row in self.rows() for found in self.audit(row.id).violations]


def _id(run: Handle | str) -> str:
    return run if isinstance(run, str) else run.id
