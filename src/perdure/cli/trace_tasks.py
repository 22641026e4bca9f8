"""What the steps of a trace's graph do: take the recorded time, check the files they read, write those they made."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from hashlib import blake2b, shake_128
from pathlib import Path
from typing import Any, Final

from perdure.authoring.definition import Graph
from perdure.authoring.task import task
from perdure.authoring.wfformat import Trace, trace_graph
from perdure.model.ids import short_hash

BLOCK: Final = 1 << 20
# What is known of a file that was written: its size in bytes, and the hash of its content.
Stamp = tuple[int, str]


class TraceFileWrong(Exception):
    """A file that a step reads is not as the step that wrote it recorded it."""


@task(name="stage")
def stage(folder: str, shrink: float, files: dict[str, int]) -> dict[str, Stamp]:
    """Make the files that no step writes. Units: sizes in bytes as recorded."""
    return _write(folder, shrink, files)


@task(name="replay")
async def replay(
    *,
    folder: str,
    speed: float,
    shrink: float,
    seconds: float,
    inputs: list[str],
    outputs: dict[str, int],
    given: list[dict[str, Stamp]],
) -> dict[str, Stamp]:
    """Check the files that are read, take the recorded time, and write the files that were written.

    Shape: `given` is what the writers of the inputs recorded of their files.
    Raises: `TraceFileWrong`.
    """
    stamps = {file: stamp for written in given for file, stamp in written.items()}
    if inputs:
        await asyncio.to_thread(_check, folder, inputs, stamps)
    await asyncio.sleep(seconds / speed)
    return await asyncio.to_thread(_write, folder, shrink, outputs) if outputs else {}


def graph_of_trace(trace: Trace, speed: float, shrink: float, folder: str, source: str = "") -> Graph[..., Any]:
    """The graph that replays a trace with the tasks of this file. Raises: `DefinitionError`."""
    return trace_graph(trace, replay=replay, stage=stage, speed=speed, shrink=shrink, folder=folder, source=source)


def file_path(folder: str, file: str) -> Path:
    """Where a file of the trace is kept: flat, and inside the folder whatever its id is."""
    return Path(folder) / f"{short_hash(file.encode(), 10)}-{file.rpartition('/')[2][-100:]}"


def _check(folder: str, files: list[str], stamps: dict[str, Stamp]) -> None:
    for file in files:
        if file not in stamps:
            raise TraceFileWrong(f"no step has written {file}")
        path, (size, digest) = file_path(folder, file), stamps[file]
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise TraceFileWrong(f"{file} is not there: {path}") from None
        if found != size:
            raise TraceFileWrong(f"{file} has {found:,} bytes instead of {size:,}: {path}")
        if _digest(path) != digest:
            raise TraceFileWrong(f"{file} has another content than was written: {path}")


def _digest(path: Path) -> str:
    found = blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def _write(folder: str, shrink: float, files: dict[str, int]) -> dict[str, Stamp]:
    """Write each file whole or not at all; its content follows from its id and size, so twice is as once."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    written: dict[str, Stamp] = {}
    for file, recorded in files.items():
        size, digest = -int(-recorded // shrink), blake2b(digest_size=16)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                for block in _content(file, size):
                    digest.update(block)
                    stream.write(block)
            Path(temporary).replace(file_path(folder, file))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        written[file] = (size, digest.hexdigest())
    return written


def _content(file: str, size: int) -> Iterator[bytes]:
    """Bytes that follow from the file's id."""
    for number in range(-(-size // BLOCK)):
        yield shake_128(f"{file}\0{number}".encode()).digest(min(BLOCK, size - number * BLOCK))
