"""An engine that serves until it is ended: python -m tests.crash.programs.server STORE [SETTING=VALUE …]."""

from __future__ import annotations

import asyncio
import os
import sys

import perdure
from tests.crash.programs import waits
from tests.crash.witness import note


async def main(address: str, settings: list[str]) -> None:
    given = dict(setting.split("=") for setting in settings)
    async with perdure.open(address, workflows=[waits], **given):
        note("served", os.getpid())
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
