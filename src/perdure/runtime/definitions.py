"""Graphs' definitions in the store: each is kept as a blob, under its hash, with the runs that have it (S23).

So a client reads a run's graph without its code, and a graph that came as data goes on wherever its tasks are served.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.authoring.load import bind_graph
from perdure.errors import DefinitionError, StoreDamaged
from perdure.kernel.plan import document_of
from perdure.model.graph import GraphDefinition, definition_hash

if TYPE_CHECKING:
    from perdure.authoring.registry import Registry
    from perdure.model.run import RunRow
    from perdure.model.workflow import WorkflowSpec
    from perdure.state.store import Batch, Ref, Store

log = logging.getLogger("perdure.definitions")
# Of a graph's definition, which is kept; the hash of a flow's source is shorter.
HASH_DIGITS: Final = 64


def keep(batch: Batch, ref: Ref, spec: WorkflowSpec) -> int:
    """Let the commit keep the definition of a run's graph. Units: bytes that this adds."""
    body = document_of(spec)
    batch.blobs.append((ref, spec.definition_hash, body))
    return len(body)


async def definition_of(store: Store, digest: str) -> GraphDefinition | None:
    """The graph's definition that is kept under this hash; None for a flow's, and where none is kept."""
    if len(digest) != HASH_DIGITS:
        return None
    try:
        body = (await store.blobs([digest]))[digest]
        definition = msgspec.json.decode(body, type=GraphDefinition)
    except (StoreDamaged, msgspec.DecodeError) as error:
        log.warning("definition %s cannot be read: %s", digest, error)
        return None
    return definition if definition_hash(definition) == digest else None


async def bind_kept(store: Store, registry: Registry, rows: Iterable[RunRow]) -> None:
    """Serve the graphs of these runs by their kept definitions, where no code serves them but that of their tasks."""
    for row in rows:
        if len(row.definition) == HASH_DIGITS and registry.workflow(row.workflow, row.version, row.definition) is None:
            await bound(store, registry, row)


async def bound(store: Store, registry: Registry, row: RunRow) -> WorkflowSpec | None:
    """The run's graph by its kept definition, bound to what is served; None where that lacks something."""
    there = registry.kept(row.definition)
    definition = await definition_of(store, row.definition) if there is None else None
    if definition is None:
        return there
    try:
        spec = bind_graph(definition, registry.activities(), imports=registry.modules)
    except DefinitionError as error:
        log.info("run %s of %s is not served: %s", row.id, row.workflow, error)
        return None
    registry.keep(spec)
    return spec
