"""`perdure draw`: a graph for people, from a file or as the store keeps it for a run."""

from __future__ import annotations

from pathlib import Path

import click

from perdure.authoring.document import to_json, to_yaml
from perdure.authoring.draw import draw as drawn
from perdure.cli.loading import load_target
from perdure.cli.options import Session, awaited, command
from perdure.cli.output import put, put_raw_json
from perdure.errors import BadCall, BadId, NotAStore
from perdure.model.graph import GraphDefinition
from perdure.model.ids import check_id


@command(
    "draw",
    "Draw a graph by levels, or as Mermaid or DOT.",
    as_json=True,
    examples="""
    perdure draw etl.py:etl
    perdure draw etl.py --style dot | dot -Tsvg > etl.svg
    perdure draw etl-4k2vbq7xw3ma
    """,
)
@click.argument("target", metavar="FILE[:NAME]|RUN")
@click.option(
    "--style", type=click.Choice(["text", "mermaid", "dot", "yaml"]), default="text", show_default=True,
    help="Lines by level, a Mermaid flowchart, a Graphviz digraph, or the graph's YAML.",
)  # fmt: skip
@click.option("--each", is_flag=True, help="Draw every step by itself, also where several are alike.")
def draw(session: Session, target: str, *, style: str, each: bool) -> None:
    """Draw a graph: its steps by level, and what each needs. Steps that are alike are drawn as one.

    The graph is that of a file, or the one by which a run of the store was moved last. --json prints its definition.
    """
    definition = awaited(_kept(session, target)) if _names_a_run(target) else _loaded(target)
    if session.json:
        put_raw_json(to_json(definition).encode())
    else:
        put(to_yaml(definition) if style == "yaml" else drawn(definition, style, each=each))


def _names_a_run(target: str) -> bool:
    try:
        check_id(target)
    except BadId:
        return False
    return not Path(target).is_file()


def _loaded(target: str) -> GraphDefinition:
    spec = load_target(target)
    if spec.graph is None:
        raise BadCall(f"{spec.name} is a flow: its steps are known when it runs; `perdure story RUN` tells them")
    return spec.graph


async def _kept(session: Session, run_id: str) -> GraphDefinition:
    """The graph of a run. Raises: `BadCall` where there is none, or it is a flow."""
    try:
        session.must_exist()
    except NotAStore as error:
        raise BadCall(f"there is no file {run_id} (name a file FILE.py[:NAME]), and no run to draw: {error}") from None
    async with session.client() as client:
        definition = await client.definition(run_id)
    if definition is None:
        raise BadCall(
            f"the store keeps no graph for run {run_id}: a flow's steps are known when it runs; "
            f"`perdure story {run_id}` tells them"
        )
    return definition
