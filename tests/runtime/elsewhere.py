"""A workflow of another module: an engine that serves this folder's others need not serve it."""

from __future__ import annotations

import asyncio

from perdure import workflow


@workflow
async def naps_elsewhere(seconds: float) -> str:
    await asyncio.sleep(seconds)  # durable
    return "rested"
