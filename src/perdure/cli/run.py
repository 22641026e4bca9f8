"""`perdure run`: run a workflow to its end, here and now."""

from __future__ import annotations

import os
import shlex
import sys
from difflib import get_close_matches
from typing import Any

import click
import msgspec

from perdure.app import Asked, Stopper, begun
from perdure.cli.inputs import by_name, pairs
from perdure.cli.loading import TraceOptions, load_target
from perdure.cli.options import Session, command
from perdure.cli.output import put_json, put_raw_json, put_text, run_data, say
from perdure.cli.show import result_of
from perdure.errors import NeedsAttention, PerdureError, RunCancelled, RunFailed
from perdure.model.workflow import WorkflowSpec
from perdure.monitoring.progress import Progress
from perdure.runtime.desk import Handle
from perdure.runtime.engine import Engine
from perdure.runtime.figures import NodeFigures
from perdure.settings import Settings

ENDS = (RunFailed, RunCancelled, NeedsAttention)


@command(
    "run",
    "Run a workflow to its end and print its result.",
    as_json=True,
    examples="""
    perdure run hello.py --input '{"names": ["Ada", "Grace"]}'
    perdure run shop.py:fulfil -p order=@order.json --id order-42 --tag region=eu
    perdure run etl.yaml -p day='"2026-01-31"' --set threads_max=8
    perdure run montage.json --speed 100 --shrink 1000
    """,
)
@click.argument("target", metavar="FILE[:NAME]")
@click.option("--input", "-i", "whole", metavar="JSON|@FILE|-", help="The parameters by name, as one JSON object.")
@click.option("--parameter", "-p", "single", multiple=True, metavar="NAME=JSON", help="One parameter; may be repeated.")
@click.option("--id", "run_id", metavar="ID", help="Name the run; given again, it is resumed or its result is printed.")
@click.option("--fresh", is_flag=True, help="Start anew, though an unfinished run has the same input.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="A tag of the run; may be repeated.")
@click.option("--raw", is_flag=True, help="Print a result that is a text without quotes.")
@click.option(
    "--durability", type=click.Choice(["full", "relaxed"]),
    help="full: what was acknowledged survives a power cut (default); relaxed: only a crash of the program.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE",
    help="A setting (`perdure doctor --settings` lists them); each is also PERDURE_<NAME> in the environment.",
)  # fmt: skip
@click.option(
    "--speed",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="Traces: so many times as fast as recorded.",
)
@click.option(
    "--shrink", metavar="N", type=click.FloatRange(min=0, min_open=True), help="Traces: files so many times smaller."
)
@click.option("--work", metavar="FOLDER", help="Traces: where the files are kept [perdure-work/NAME].")
def run(session: Session, target: str, **given: Any) -> None:
    """Run a workflow to its end and print its result as JSON.

    FILE is a program (.py, with NAME where it defines several workflows), a graph (.yaml, .json) or an execution
    trace (WfFormat 1.5, .json). Killed and started again, the same command resumes the run. --json prints the
    whole run.
    """
    made = settings_of(given["settings"], durability=given["durability"])
    spec = load_target(target, TraceOptions(given["speed"], given["shrink"], given["work"]))
    asked = Asked(
        spec,
        input=by_name(given["whole"], given["single"]),
        id=given["run_id"],
        fresh=given["fresh"],
        tags=pairs(given["tags"], "--tag"),
    )
    one = _Run(session, asked, made, target)
    Stopper(one.left, say).run(one.whole(raw=given["raw"]))


def settings_of(texts: tuple[str, ...], **more: Any) -> Settings:
    """Settings from `--set`, other options and the environment. Raises: `BadCall` naming a name that is meant."""
    given = pairs(texts, "--set")
    known = [field.name for field in msgspec.structs.fields(Settings)]
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; {near[0]!r} is meant?" if near else "; `perdure doctor --settings` lists them"
            raise click.UsageError(f"there is no setting {name!r}{hint}")
    return Settings.from_environment(os.environ, **{**given, **more})


class _Run:
    """One run from the command line. Shape: `id` is empty until it has begun."""

    def __init__(self, session: Session, asked: Asked, settings: Settings, target: str) -> None:
        self.session, self.asked, self.settings, self.target = session, asked, settings, target
        self.id = ""

    async def whole(self, *, raw: bool) -> None:
        """Begin or resume it, wait for its end, print what came of it."""
        error: PerdureError | None = None
        async with begun(self.asked, self.session.store, self.settings, say) as (engine, handle):
            self.id = handle.id
            with Progress(NodeFigures(engine.node), handle.id, sys.stderr):
                try:
                    value = await handle.result()
                except ENDS as ended:
                    error, value = ended, None
            if self.session.json:
                await _put_whole(engine, handle)
        if error is not None:
            raise error
        if not self.session.json:
            _put(self.asked.workflow, value, self.settings.payload_max, raw=raw)

    def left(self) -> str:
        """How what was stopped goes on."""
        if not self.id:
            return "stopped before the run began"
        again = "the same command"
        if self.asked.fresh or self.asked.id is None:
            again = f"the same command, or `perdure run {shlex.quote(self.target)} --id {self.id}` with the same input"
        if self.asked.fresh:
            again = f"`perdure run {shlex.quote(self.target)} --id {self.id}` with the same input"
        return f"stopped; run {self.id} goes on with {again}"


def _put(spec: WorkflowSpec, value: Any, limit: int, *, raw: bool) -> None:
    if raw and isinstance(value, str):
        put_text(value)
    else:
        put_raw_json(spec.result.encode(value, limit))


async def _put_whole(engine: Engine, handle: Handle) -> None:
    row, state = await engine.row(handle.id), await handle.state()
    put_json(run_data(row, state, await result_of(engine, row), served=True))
