"""Runs a program of the pages in virtual time: `python virtual.py PROGRAM`. Its durable sleeps take no time."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import perdure
from perdure.testing.world import World


def main(program: str) -> None:
    with World() as world:

        def run(workflow: Any, *args: Any, id: str | None = None, **kwargs: Any) -> Any:
            return world.run(workflow, *args, id=id, **kwargs)

        perdure.run = run
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
