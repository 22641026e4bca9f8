"""Files of a store are cut, deleted, taken back or exchanged: what is lost is noticed (F16, F17)."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure
from perdure.errors import StoreBehind, StoreLost
from tests.crash.harness import audited, until_async
from tests.state import flips, programs

ADDRESS = f"sqlite:///{flips.FILE}"
LOG, MARK, INDEX = f"{flips.FILE}-wal", f"{flips.FILE}.mark", f"{flips.FILE}-shm"
RUNS = ("a", "b", "c")
HEADER, FRAME = 32, 24 + 4096


def read(name: str) -> bytes:
    return Path(name).read_bytes()


def remove(name: str) -> None:
    Path(name).unlink()


def lay_without_log_index(files: dict[str, bytes]) -> None:
    flips.lay({name: data for name, data in files.items() if name != INDEX})


def opening(**settings: object) -> perdure.app.Opening:
    return perdure.open(ADDRESS, [programs.waits], **programs.SETTINGS, **settings)


async def died() -> dict[str, bytes]:
    """The files of an engine that died after three runs and one signal, each acknowledged; all of it in the log."""
    async with opening() as engine:
        for run in RUNS:
            await engine.start(programs.waits, 1, id=run)
            await until_async(lambda run=run: waits(engine, run), "it waits")
        await engine.get("a").signal("go", 5, request_id="go-a")
        assert await engine.get("a").result("60s") == 14
        engine.store._keeper._write_mark(engine.store._writer.commits, 0.0)
        left = flips.files() | {INDEX: read(INDEX)}
    assert len(left[LOG]) > 20 * FRAME
    return left


async def waits(engine: perdure.Engine, run: str) -> bool:
    return bool((await engine.row(run)).wait.signals)


async def goes_on(engine: perdure.Engine, runs: tuple[str, ...] = RUNS) -> None:
    """Each of these runs comes to its end."""
    for run in runs:
        if not (await engine.row(run)).life.ended:
            await engine.get(run).signal("go", 5, request_id=f"go-{run}")
        assert await engine.get(run).result("60s") == 14


async def test_f16_the_index_of_the_log_is_deleted(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: the -shm file is no part of the store: it is made again, and nothing is missing."""
    left = await died()
    for index in (None, left[INDEX], b"not an index at all" * 100):
        without = {name: data for name, data in left.items() if name != INDEX}
        flips.lay(without if index is None else {**without, INDEX: index})
        capfd.readouterr()
        async with opening() as engine:
            assert capfd.readouterr().err == ""
            assert (await engine.row("a")).status == "completed"
            await goes_on(engine)
        assert set(await audited(ADDRESS, programs.waits)) == set(RUNS)


async def test_f16_a_log_that_was_cut_or_deleted_is_noticed_wherever_it_was_cut() -> None:
    """Goal: a log with less than was acknowledged is a sound older state; the mark tells, and nothing is begun."""
    left = await died()
    frames = (len(left[LOG]) - HEADER) // FRAME
    sizes = [0, HEADER, *(HEADER + number * FRAME for number in range(1, frames, 3)), len(left[LOG]) - 1]
    for size in [None, *sizes]:
        lay_without_log_index({**left, LOG: left[LOG][:size]})
        if size is None:
            remove(LOG)
        with pytest.raises(
            StoreBehind, match=r"holds \d+ commits, but \d+ were acknowledged: its write-ahead log was lost"
        ):
            async with opening():
                pass
        with pytest.raises(StoreBehind):
            async with opening():
                pass  # nor the second time: being refused changes nothing


async def test_f16_an_accepted_loss_goes_on_from_what_is_there_in_a_new_epoch(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Goal: after a person's word the older state is gone on from; what it holds verifies, and the mark is its own again."""
    left = await died()
    frames = (len(left[LOG]) - HEADER) // FRAME
    epochs = set()
    for number in range(frames // 2, frames, 4):
        lay_without_log_index({**left, LOG: left[LOG][: HEADER + number * FRAME]})
        capfd.readouterr()
        async with opening(accept_loss=True) as engine:
            assert "the missing ones are given up, as was asked for" in capfd.readouterr().err
            there = tuple([run.id async for run in engine.runs()])
            await goes_on(engine, there)
            epochs.add(engine.epoch)
        assert set(await audited(ADDRESS, programs.waits)) == set(there)
        async with opening() as engine:
            assert capfd.readouterr().err == ""
            epochs.add(engine.epoch)
    assert epochs == {2, 3}


async def test_f16_a_missing_mark_is_told_and_made_again(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: without its mark a store is used, and it is said that nothing could be checked; the next start can."""
    left = await died()
    for mark in (None, b"", b"\xff\x00 no mark"):
        flips.lay({**left, MARK: mark or b""})
        if mark is None:
            remove(MARK)
        capfd.readouterr()
        async with opening() as engine:
            assert "that nothing was taken back cannot be checked this time" in capfd.readouterr().err
            await goes_on(engine)
        async with opening():
            assert capfd.readouterr().err == ""


async def test_f17_an_old_backup_in_the_place_of_the_store(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: a restored copy is refused while the mark knows better; taken up by a person's word, no claim of then counts."""
    async with opening() as engine:
        await engine.start(programs.waits, 1, id="a")
        await until_async(lambda: waits(engine, "a"), "it waits")
        await engine.store.backup("old.db")
        await engine.start(programs.waits, 1, id="b")
        await goes_on(engine, ("a",))
        epoch = engine.epoch
    mark = read(MARK)
    flips.lay({flips.FILE: read("old.db"), MARK: mark})
    with pytest.raises(StoreBehind, match="or it is an old copy"):
        async with opening():
            pass
    capfd.readouterr()
    async with opening(accept_loss=True) as engine:
        assert "given up, as was asked for" in capfd.readouterr().err
        assert engine.epoch == epoch + 1
        assert [run.id async for run in engine.runs()] == ["a"]
        await goes_on(engine, ("a",))
    assert set(await audited(ADDRESS, programs.waits)) == {"a"}


async def test_f17_another_store_in_the_place_of_the_store(capfd: pytest.CaptureFixture[str]) -> None:
    """Goal: a store with another id begins its mark afresh, with a notice, and is not held against the other's mark."""
    left = await died()
    flips.lay({})
    async with opening() as engine:
        await engine.start(programs.waits, 1, id="other")
    flips.lay({flips.FILE: read(flips.FILE), MARK: left[MARK]})
    capfd.readouterr()
    async with opening() as engine:
        assert "is another store than the one that was here before (its mark begins afresh)" in capfd.readouterr().err
        await goes_on(engine, ("other",))
    async with opening():
        assert capfd.readouterr().err == ""
    assert set(await audited(ADDRESS, programs.waits)) == {"other"}


def exchange(how: str) -> None:
    if how == "deleted":
        remove(flips.FILE)
    else:
        Path("copy.db").rename(flips.FILE)


async def start_many(engine: perdure.Engine) -> None:
    for number in range(100):
        await engine.start(programs.waits, number)


@pytest.mark.parametrize("how", ["exchanged", "deleted"])
async def test_f17_the_file_is_taken_away_under_a_running_engine(how: str) -> None:
    """Goal: within a second of commits the engine notices that it writes to a file that is no longer there, and stops."""
    async with opening() as engine:
        await engine.start(programs.waits, 1, id="a")
        await engine.store.backup("copy.db")
        exchange(how)
        engine.store._keeper._mark._written_s = None  # a second later
        with pytest.raises(StoreLost, match="was removed or replaced while it was open"):
            await start_many(engine)
    if how == "exchanged":
        async with opening() as engine:
            await goes_on(engine, ("a",))
