"""A client: asks for change through the store's inbox, beside a running engine or none (D4)."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from perdure.errors import IdInUse, ResultTimeout, UnknownRun, WrongState
from perdure.model import message as m
from perdure.model.run import Life, Outcome
from perdure.model.workflow import WorkflowSpec
from perdure.runtime.definitions import keep
from perdure.runtime.desk import Desk
from perdure.runtime.live import Ended
from perdure.runtime.node import done
from perdure.runtime.ways import ends_already, unknown_step
from perdure.state.store import Batch, NewRun, Query, Ref

POLL_S = 0.02


class Client(Desk):
    """Made by `perdure.connect(...)`.

    What it asks is durable when its call returns; a running engine picks it up at once.
    """

    async def send(self, message: m.Message, *, repeated: bool = False) -> Any:
        message.at = self.clock.wall_us()
        if repeated:
            known = (await self.store.answers([message.request])).get(message.request)
            if known is not None:
                return 0
        if not isinstance(message, m.Fork):
            try:
                await self._check(message)
            except WrongState:
                # It may have been folded, and have ended the run, since it was looked for.
                if not repeated or not await self.store.answers([message.request]):
                    raise
                return 0
        batch = Batch()
        batch.inbox.append(message)  # type: ignore[arg-type]
        await done(self.store.commit(batch))
        return 0

    async def _check(self, message: m.Message) -> None:
        """Raises: `UnknownRun`, `WrongState`; a run may still end between this look and the engine's."""
        rows = await self.store.find(Query(ids=(message.run,), limit=1))
        if not rows:
            raise UnknownRun(message.run)
        life = rows[0].life
        if isinstance(message, m.Retry):
            if life is Life.COMPLETED:
                raise WrongState(f"run {message.run} has completed: there is nothing to retry; fork it to run it again")
            if life in {Life.LIVE, Life.QUEUED}:
                raise WrongState(f"run {message.run} has not ended: there is nothing to retry")
            outcome = msgspec.json.decode(rows[0].outcome or b"{}", type=Outcome)
            if outcome.cause == "outcome_unknown":
                raise unknown_step(message.run, outcome.step or "")
        elif life.ended:
            raise WrongState(f"run {message.run} has ended ({life.value}): nothing more can be asked of it")
        if isinstance(message, m.Cancel) and not message.force and life is Life.ATTENTION:
            outcome = msgspec.json.decode(rows[0].outcome or b"{}", type=Outcome)
            if outcome.cause == "compensation_failed":
                raise ends_already(message.run, outcome)
        if isinstance(message, m.Resolve) and life is not Life.ATTENTION:
            raise WrongState(f"run {message.run} does not need attention: it is {rows[0].status}")

    async def _begin(self, message: m.Start, spec: WorkflowSpec) -> Any:
        message.at = self.clock.wall_us()
        batch, ref = Batch(), Ref(message.run)
        if spec.graph is not None:
            keep(batch, ref, spec)
        batch.starts.append(
            NewRun(
                ref=ref, workflow=message.workflow, version=message.version, definition=message.definition,
                input_hash=message.input_hash, tags=message.tags, source=message.source, request=message.request,
                created_at=message.at, drawn=message.drawn,
            )
        )  # fmt: skip
        batch.inbox.append(message)
        committed = await done(self.store.commit(batch))
        if message.request in committed.repeated:
            return (await self.store.answers([message.request]))[message.request][0]
        if message.run in committed.refused:
            rows = await self.store.find(Query(ids=(message.run,), limit=1))
            tombs = {} if rows else await self.store.tombstones([message.run])
            same = rows and rows[0].workflow == message.workflow and rows[0].input_hash == message.input_hash
            if not same and not (message.run in tombs and tombs[message.run][0] == message.input_hash):
                raise IdInUse(message.run, rows[0].workflow if rows else message.workflow)
        return message.run

    async def wait_end(self, run_id: str, timeout_us: int | None) -> Ended:
        until = None if timeout_us is None else self.clock.monotonic() + timeout_us / 1e6
        while True:
            row = await self.row(run_id)
            if row.life.ended or row.life is Life.ATTENTION:
                return Ended.of(row)
            if until is not None and self.clock.monotonic() >= until:
                raise ResultTimeout(f"run {run_id} has not ended within {(timeout_us or 0) / 1e6:g}s; it goes on")
            await asyncio.sleep(POLL_S)
