"""A workflow: what a run executes, known by (name, version)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from perdure.model.graph import GraphDefinition
from perdure.model.payload import Shape, Signature
from perdure.model.task import TaskSpec


class WorkflowSpec(msgspec.Struct, kw_only=True, eq=False, weakref=True):
    """What the engine knows of a workflow.

    Shape: `definition_hash` is that of a flow's source or a graph's data: it informs, replay decides (S23).
           `fn` is a flow's async function; `graph` is a graph's definition and `tasks` its tasks by node task name.
    """

    name: str
    version: str
    kind: Literal["flow", "graph"]
    signature: Signature
    result: Shape
    definition_hash: str
    source: str = ""
    module: str = ""
    fn: Callable[..., Any] | None = None
    graph: GraphDefinition | None = None
    tasks: dict[str, TaskSpec] = {}
    workflows: dict[str, WorkflowSpec] = {}
    conditions: dict[str, Callable[..., Any]] = {}
    compensate: TaskSpec | None = None
