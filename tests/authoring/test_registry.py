"""S24: serving a workflow serves the workflows of its module, and those that it calls, wherever they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perdure import DefinitionError
from perdure.authoring.registry import Registry
from perdure.model.workflow import WorkflowSpec
from perdure.testing import World

KIDS = """
from perdure import graph, task, workflow

@task
def kept(n: int) -> int:
    return n

@workflow
async def by_attribute(n: int) -> int:
    return await kept(n)

@workflow(version="1")
async def versioned(n: int) -> int:
    return 1

old = versioned

@workflow(version="2")
async def versioned(n: int) -> int:
    return 2

@graph
def drawn(n: int):
    return kept(n)

@workflow
async def bystander(n: int) -> int:
    return n
"""
AUNTS = """
import deep_kids
from perdure import workflow

async def helper(n: int) -> int:
    return await deep_kids.by_attribute(n)

@workflow
async def grand(n: int) -> int:
    return await helper(n)
"""
MOM = """
import asyncio
import time
import deep_aunts, deep_kids
from deep_kids import drawn as painted
from perdure import now, workflow

async def uses(n: int) -> int:
    async def inner() -> int:
        return await deep_aunts.grand(n)
    return await inner()

@workflow
async def mom(n: int) -> list[int]:
    now()
    return [await uses(n), await deep_kids.old(n), await painted(n)]

@workflow
async def guarded(n: int) -> int:
    if n > 100:
        time.time()
    return await deep_kids.by_attribute(n)

def closed():
    @workflow
    async def inside(n: int) -> int:
        return n

    @workflow
    async def outside(n: int) -> int:
        return await inside(n)

    @workflow
    async def itself(n: int) -> int:
        return n if n < 1 else await itself(n - 1)

    return outside, itself
"""


@pytest.fixture
def mom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    texts = {"deep_kids": KIDS, "deep_aunts": AUNTS, "deep_mom": MOM}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import deep_mom  # type: ignore[import-not-found]

    yield deep_mom
    for name in texts:
        del sys.modules[name]


def _served(*workflows: WorkflowSpec) -> set[tuple[str, str]]:
    return set(Registry(workflows).names())


def test_s24_what_is_called_is_served_through_modules_helpers_and_closures(mom: Any) -> None:
    """Goal: a child is found by attribute of its module, under another name, in a helper, in a closure, by itself."""
    calls = {("grand", "1"), ("by_attribute", "1"), ("versioned", "1"), ("drawn", "1")}
    assert _served(mom.mom) == {("mom", "1"), ("guarded", "1"), *calls}
    outside, itself = mom.closed()
    assert ("inside", "1") in _served(outside)
    assert ("itself", "1") in _served(itself)
    with World("memory:") as world:
        assert world.run(mom.mom, 3) == [3, 1, 3]
        assert world.run(mom.guarded, 3) == 3
        assert world.run(outside, 3) == 3
        assert world.run(itself, 3) == 0
        assert world.audit_all() == []


def test_s24_a_module_serves_all_that_it_holds(mom: Any) -> None:
    """Goal: the newest definition of a name is what its name alone means; what is called is of the version called."""
    import deep_kids  # type: ignore[import-not-found]

    assert _served(deep_kids) >= {("versioned", "2"), ("bystander", "1"), ("drawn", "1")}
    registry = Registry([deep_kids, mom.mom])
    newest = registry.workflow("versioned", "")
    assert newest is not None
    assert newest.version == "2"
    assert registry.workflow("versioned", "1") is deep_kids.old
    with pytest.raises(DefinitionError, match="workflows and modules"):
        Registry([print])
