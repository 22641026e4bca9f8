"""perdure: durable workflows for Python. Write ordinary functions; what they have done is never lost."""

from perdure.app import arun, connect, open, run
from perdure.authoring.definition import GraphBuilder
from perdure.authoring.graph import graph
from perdure.authoring.inflow import (
    continue_as_new,
    detach,
    log,
    now,
    patched,
    random,
    signal_run,
    uuid,
    variables,
    wait_signal,
)
from perdure.authoring.load import load_graph
from perdure.authoring.task import Task, task
from perdure.authoring.workflow import Flow, workflow
from perdure.errors import (
    DefinitionError,
    IdInUse,
    NeedsAttention,
    NonDeterminism,
    NotDone,
    NotInWorkflow,
    PerdureError,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    StepFailed,
    StoreError,
)
from perdure.model.command import UNKNOWN
from perdure.model.failure import Failure
from perdure.model.policy import Retry
from perdure.model.run import WorkflowState
from perdure.runtime.attempt import attempt, heartbeat, idempotency_key, progress, run_id, transaction
from perdure.runtime.client import Client
from perdure.runtime.desk import Handle
from perdure.runtime.engine import Engine
from perdure.version import VERSION as __version__  # noqa: N811

__all__ = [
    "UNKNOWN", "Client", "DefinitionError", "Engine", "Failure", "Flow", "GraphBuilder", "Handle", "IdInUse",
    "NeedsAttention", "NonDeterminism", "NotDone", "NotInWorkflow", "PerdureError", "ResultTimeout", "Retry",
    "RunCancelled", "RunFailed", "StepFailed", "StoreError", "Task", "WorkflowState", "__version__", "arun", "attempt",
    "connect", "continue_as_new", "detach", "graph", "heartbeat", "idempotency_key", "load_graph", "log", "now", "open",
    "patched", "progress", "random", "run", "run_id", "signal_run", "task", "transaction", "uuid", "variables", "wait_signal", "workflow",
]  # fmt: skip
