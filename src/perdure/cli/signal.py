"""`perdure signal`: tell a run something."""

from __future__ import annotations

import click

from perdure.cli.inputs import json_value
from perdure.cli.options import Session, awaited, command, say_whether_served
from perdure.cli.output import say


@command(
    "signal",
    "Send a signal to a run.",
    examples="""
    perdure signal order-42 approval '{"by": "ann", "ok": true}'
    perdure signal order-42 approval @approval.json --request-id mail-77
    """,
)
@click.argument("run")
@click.argument("name")
@click.argument("value", metavar="JSON", default="null")
@click.option("--request-id", help="Said twice with one request id, it counts once.")
def signal(session: Session, run: str, name: str, value: str, request_id: str | None) -> None:
    """Send a signal to a run; it is durable when this returns.

    JSON is the value, @FILE or - (stdin); null when left out.
    """
    sent = json_value(value, "the value")

    async def ask() -> str:
        async with session.client() as client:
            await client.signal(run, name, sent, request_id=request_id)
            return await say_whether_served(client, f"signal {name} is with run {run}")

    say(awaited(ask()))
