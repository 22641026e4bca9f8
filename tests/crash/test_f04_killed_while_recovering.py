"""A death during recovery, and during the recovery from that, and once more (F04)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from tests.crash.harness import SIGKILLED, Program, strace
from tests.crash.test_f01_every_system_call import ADDRESS, goes_on
from tests.crash.witness import notes

pytestmark = pytest.mark.crash
# Which write of each start is its last. A start that has less to write than that ends by itself.
SAMPLE = ((40, 12, 5), (60, 3, 3), (25, 25, 25), (90, 20, 1))
ALL = tuple(product((15, 40, 60, 90, 110), (1, 3, 12, 25, 40), (1, 5, 12, 25)))


async def nested(folder: Path, writes: tuple[int, ...]) -> int:
    """Start anew after each death, killed at these writes; how many deaths took place."""
    tracer = strace()
    if tracer is None:
        pytest.skip("strace cannot run here; deaths at commits are nested in the simulation")
    died = 0
    for number in writes:
        injected = ["-e", "trace=pwrite64", "-e", f"inject=pwrite64:signal=KILL:when={number}"]
        with Program("small", ADDRESS, before=[tracer, "-f", "-qq", *injected, "-o", "trace"]) as program:
            died += program.ends() == SIGKILLED
    await goes_on(f"{folder.name}, after {writes}", died)
    return died


@pytest.mark.parametrize("writes", SAMPLE)
async def test_f04_killed_in_three_starts_in_a_row(
    writes: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: recovery may die at any write and be begun again; it ends where the first would have ended."""
    monkeypatch.setenv("WITNESS", str(tmp_path))
    assert await nested(tmp_path, writes) >= 2
    assert notes("acks")[-1] == ["result"]


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_f04_killed_in_three_starts_at_many_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: as above, over a grid of writes."""
    died = 0
    for writes in ALL:
        folder = tmp_path / "-".join(map(str, writes))
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("WITNESS", str(folder))
        died += await nested(folder, writes)
    assert died >= 2 * len(ALL)
