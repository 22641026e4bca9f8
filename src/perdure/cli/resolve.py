"""`perdure resolve`: a person's word on a step of a run that needs attention."""

from __future__ import annotations

from typing import Literal

import click

from perdure.cli.inputs import json_value
from perdure.cli.options import Session, awaited, command, say_whether_served
from perdure.cli.output import say
from perdure.cli.retry import user


@command(
    "resolve",
    "Say what became of a step that nobody knows of.",
    examples="""
    perdure resolve order-42 charge#1 --result '"pay-7"'
    perdure resolve order-42 charge#1 --retry
    """,
)
@click.argument("run")
@click.argument("step")
@click.option("--result", metavar="JSON", help="It took place, and this is its result.")
@click.option("--fail", is_flag=True, help="It did not take place, and is not to be tried again.")
@click.option("--retry", "again", is_flag=True, help="It did not take place: try it again.")
@click.option("--request-id", help="Said twice with one request id, it counts once.")
def resolve(
    session: Session, run: str, step: str, *, result: str | None, fail: bool, again: bool, request_id: str | None
) -> None:
    """Say what became of a step, where the engine cannot know and will not guess."""
    if (result is not None) + fail + again != 1:
        raise click.UsageError("one of --result JSON, --fail and --retry says what became of the step")
    how: Literal["result", "fail", "retry"] = "fail" if fail else "retry" if again else "result"
    value = None if result is None else json_value(result, "--result")

    async def ask() -> str:
        async with session.client() as client:
            await client.resolve(run, step, how, value, by=user(), request_id=request_id)
            return await say_whether_served(client, f"step {step} of run {run} is resolved: {how}")

    say(awaited(ask()))
