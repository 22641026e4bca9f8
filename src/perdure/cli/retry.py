"""`perdure retry`: another try for a run that failed, was cancelled, or needs attention."""

from __future__ import annotations

import getpass

import click

from perdure.cli.options import Session, awaited, command, say_whether_served
from perdure.cli.output import say


@command(
    "retry", "Try a run again, keeping what succeeded.", examples="perdure retry order-42 --why 'the bank is back'"
)
@click.argument("run")
@click.option("--why", default="", help="Why; kept in the history.")
@click.option("--request-id", help="Said twice with one request id, it counts once.")
def retry(session: Session, run: str, why: str, request_id: str | None) -> None:
    """Begin the next generation of a run: what succeeded and was not undone is kept."""

    async def ask() -> str:
        async with session.client() as client:
            await client.retry(run, by=user(), why=why, request_id=request_id)
            return await say_whether_served(client, f"run {run} is to be tried again")

    say(awaited(ask()))


def user() -> str:
    """Who asks, for the history; empty where that is not known."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
