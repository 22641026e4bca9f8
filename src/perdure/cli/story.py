"""`perdure story`: what happened to a run, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import click

from perdure.cli.options import Session, awaited, command
from perdure.cli.output import clock, put, put_json_lines, style, styled_status, width_of_terminal
from perdure.model.run import WorkflowState
from perdure.model.text import escape
from perdure.monitoring.progress import lasting
from perdure.monitoring.story import Sentence, tell

COLOURS = {"good": "green", "bad": "red", "retry": "yellow", "crash": "red", "undo": "yellow", "skip": "bright_black"}
SIGNS = {
    "begin": ">", "good": "+", "bad": "!", "retry": "~", "crash": "x", "undo": "<", "skip": "-", "signal": "*",
    "timer": "@",
}  # fmt: skip


@command(
    "story",
    "Tell what happened to a run, in sentences.",
    as_json=True,
    examples="perdure story order-42\nperdure story order-42 --last 20",
)
@click.argument("run")
@click.option("--last", type=click.IntRange(1), help="Only the last so many facts.")
def story(session: Session, run: str, last: int | None) -> None:
    """Tell what happened to a run, one sentence a fact."""

    async def look() -> WorkflowState:
        async with session.client() as client:
            return await client.state(run)

    state = awaited(look())
    sentences = tell(state.history[-last:] if last else state.history)
    if session.json:
        put_json_lines(sentences)
        return
    data = state.metadata
    name = f"{escape(data.workflow)} (version {escape(data.version)})"
    put(f"{style(data.id, bold=True)}  {name}  {styled_status(data.status)}")
    for line in story_lines(sentences, data.created):
        put(line)


def story_lines(sentences: Sequence[Sentence], begun: datetime) -> list[str]:
    """Each sentence with its fact's number and time; days and hours as they pass, else seconds since the start."""
    digits = len(str(sentences[-1].seq)) if sentences else 1
    room = width_of_terminal()
    lines = []
    for one in sentences:
        at = clock(one.at) if one.seq == 1 else f"+{lasting((one.at - begun).total_seconds())}"
        head = f"{one.seq:>{digits}}  {at:>19}  {SIGNS.get(one.mark, ' ')} "
        text = one.text if room is None or len(head) + len(one.text) <= room else wrapped(one.text, len(head), room)
        lines.append(style(head, dim=True) + style(text, fg=COLOURS.get(one.mark)))
    return lines


def wrapped(text: str, indent: int, room: int) -> str:
    """The text in lines that begin where its first does."""
    width, lines = max(room - indent, 20), []
    while len(text) > width:
        cut = text.rfind(" ", 0, width + 1)
        cut = cut if cut > width // 2 else width
        lines.append(text[:cut])
        text = text[cut:].lstrip()
    return f"\n{' ' * indent}".join([*lines, text])
