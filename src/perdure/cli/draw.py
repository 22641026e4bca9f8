"""`perdure draw`: a graph as a picture of text."""

from __future__ import annotations

import click

from perdure.authoring.document import to_json, to_yaml
from perdure.authoring.draw import draw as drawn
from perdure.cli.loading import load_target
from perdure.cli.options import Session, command
from perdure.cli.output import put, put_raw_json
from perdure.errors import BadCall


@command(
    "draw",
    "Draw a graph by levels, or as Mermaid or DOT.",
    store=False,
    as_json=True,
    examples="""
    perdure draw etl.py:etl
    perdure draw etl.py --style dot | dot -Tsvg > etl.svg
    """,
)
@click.argument("target", metavar="FILE[:NAME]")
@click.option(
    "--style", type=click.Choice(["text", "mermaid", "dot", "yaml"]), default="text", show_default=True,
    help="Lines by level, a Mermaid flowchart, a Graphviz digraph, or the graph's YAML.",
)  # fmt: skip
def draw(session: Session, target: str, style: str) -> None:
    """Draw a graph: its steps by level, and what each needs. --json prints its definition."""
    spec = load_target(target)
    if spec.graph is None:
        raise BadCall(f"{spec.name} is a flow: its steps are known when it runs; `perdure story RUN` tells them")
    if session.json:
        put_raw_json(to_json(spec.graph).encode())
    else:
        put(to_yaml(spec.graph) if style == "yaml" else drawn(spec.graph, style))
