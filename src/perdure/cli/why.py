"""`perdure why`: the exact things that a run waits for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from perdure.cli.options import Session, awaited, command
from perdure.cli.output import clock, put, put_json, style, styled_status
from perdure.model.text import escape
from perdure.monitoring.why import Reason, Why

COLOURS = {"attention": "bright_magenta", "no_engine": "yellow", "not_served": "yellow", "retry": "yellow"}


@command(
    "why",
    "Tell why a run waits: what for, since when, and what would end it.",
    as_json=True,
    examples="perdure why order-42\nperdure why order-42 --json | jq -r '.reasons[].kind'",
)
@click.argument("run")
def why(session: Session, run: str) -> None:
    """Tell the exact things that a run waits for.

    A signal and the command that sends it, a timer and until when, a retry and the last error, a step in an attempt and
    where, the places that it waits for and who holds them, children and what they wait for themselves, an engine that
    serves it, a person.
    """

    async def look() -> Why:
        async with session.client() as client:
            return await client.why(run)

    found = awaited(look())
    if session.json:
        put_json(found)
        return
    version = f" (version {escape(found.version)})"
    put(f"{style(found.run, bold=True)}  {escape(found.workflow)}{version}  {styled_status(found.status)}")
    for line in _lines(found.reasons, 1):
        put(line)


def _lines(reasons: Sequence[Reason], depth: int) -> Iterator[str]:
    room = "  " * depth
    for reason in reasons:
        yield f"{room}{style(reason.text, fg=COLOURS.get(reason.kind))}"
        dates = (
            [] if reason.since is None else [f"since {clock(reason.since)}{' or longer' if reason.at_least else ''}"]
        )
        if reason.until is not None:
            dates.append(f"until {clock(reason.until)}")
        if dates:
            yield style(f"{room}  {', '.join(dates)}", dim=True)
        if reason.command and not reason.reasons:
            yield style(f"{room}  $ {escape(reason.command, 500)}", dim=True)
        yield from _lines(reason.reasons, depth + 1)
