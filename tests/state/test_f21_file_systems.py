"""Where a store may lie: network file systems are refused unless forced, one in memory is told of (F21)."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure.errors import StoreUnavailable
from perdure.state import sqlite_open
from perdure.state.sqlite_open import filesystem

ADDRESS = "sqlite:///s.db"
NETWORK = {0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB2", 0x65735546: "FUSE"}
TMPFS, EXT4 = 0x01021994, 0xEF53


def on(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_open, "filesystem", lambda folder: kind)


def made() -> list[str]:
    return [path.name for path in Path().iterdir()]


@pytest.mark.parametrize("kind", NETWORK)
async def test_f21_a_network_file_system_is_refused_before_anything_is_written(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: where locks and syncs cannot be relied on there is no store, for an engine or a client, unless forced."""
    on(kind, monkeypatch)
    told = rf"is on a {NETWORK[kind]} file system.*use a local disk \(or set force_filesystem\)"
    with pytest.raises(StoreUnavailable, match=told):
        async with perdure.open(ADDRESS):
            pass
    with pytest.raises(StoreUnavailable, match=told):
        async with perdure.connect(ADDRESS):
            pass
    assert made() == []
    async with perdure.open(ADDRESS, force_filesystem=True), perdure.connect(ADDRESS, force_filesystem=True) as client:
        assert [run async for run in client.runs()] == []


async def test_f21_a_file_system_in_memory_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: nobody takes a store for durable that is gone with the power."""
    on(TMPFS, monkeypatch)
    async with perdure.open(ADDRESS):
        assert "is in memory (tmpfs): it does not outlive this machine's power" in capfd.readouterr().err


async def test_f21_a_local_disk_needs_no_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: what is as it should be is not talked about."""
    on(EXT4, monkeypatch)
    async with perdure.open(ADDRESS):
        assert capfd.readouterr().err == ""


def test_f21_the_kind_of_file_system_is_read_from_the_system() -> None:
    """Goal: the number is the kernel's own, not a guess: /proc has one that nothing else has."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    assert filesystem("/proc") == 0x9FA0
    assert filesystem("/no/such/folder") == 0
    shared = Path("/dev/shm")
    if shared.is_dir() and " /dev/shm tmpfs " in Path("/proc/mounts").read_text():
        assert filesystem(str(shared)) == TMPFS
