"""The small run on a disk that is taken for slow, so that COMMIT is in a thread: -m tests.crash.programs.beside STORE."""

from __future__ import annotations

import asyncio
import sys

import pytest

import perdure
from perdure.runtime.node import done
from perdure.state.store import Batch
from tests.crash.programs import small
from tests.state.paces import beside_the_loop

# Commits before those of the run, so that the thread makes more syncs than the loop's own, and a number says which.
BEFORE = 8


async def main(address: str) -> None:
    async with perdure.open(address, workflows=[small.small], **small.SETTINGS) as engine:
        for _ in range(BEFORE):
            await done(engine.store.commit(Batch()))
        print(await small.drive(engine, set()))


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        beside_the_loop(patch)
        asyncio.run(main(sys.argv[1]))
