"""`perdure fork`: a new run from the first facts of another."""

from __future__ import annotations

import click

from perdure.cli.options import Session, awaited, command, say_whether_served
from perdure.cli.output import put, put_json, say


@command(
    "fork",
    "Begin a new run with the first facts of another.",
    as_json=True,
    examples="perdure fork order-42 --at 7 --id order-42-again",
)
@click.argument("run")
@click.option("--at", type=click.IntRange(1), required=True, help="How many facts the new run begins with.")
@click.option("--id", "new", help="The id of the new run.")
@click.option("--request-id", help="Said twice with one request id, it counts once.")
def fork(session: Session, run: str, at: int, new: str | None, request_id: str | None) -> None:
    """Begin a new run with the first facts of another, and print its id.

    `perdure story RUN` numbers the facts.
    """

    async def ask() -> tuple[str, str]:
        async with session.client() as client:
            made = await client.fork(run, at, id=new, request_id=request_id)
            return made.id, await say_whether_served(client, f"run {made.id} begins with {at:,} facts of {run}")

    made, text = awaited(ask())
    if session.json:
        put_json({"id": made, "fork_of": run, "at": at})
    else:
        put(made)
    say(text)
