"""`perdure cancel`: ask a run to end."""

from __future__ import annotations

import click

from perdure.cli.options import Session, awaited, command, say_whether_served
from perdure.cli.output import say


@command("cancel", "Ask a run to end.", examples="perdure cancel order-42 --reason 'the customer changed her mind'")
@click.argument("run")
@click.option("--reason", default="", help="Why; kept in the history.")
@click.option("--force", is_flag=True, help="End it without its code, undoing its steps from what is recorded.")
@click.option("--request-id", help="Said twice with one request id, it counts once.")
def cancel(session: Session, run: str, reason: str, force: bool, request_id: str | None) -> None:
    """Cancel a run: its steps are stopped or settled, what has succeeded is compensated."""

    async def ask() -> str:
        async with session.client() as client:
            await client.cancel(run, reason, force=force, request_id=request_id)
            return await say_whether_served(client, f"run {run} is asked to end")

    say(awaited(ask()))
