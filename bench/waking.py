"""A signal from another process to a waiting run, until its next step begins; and what an idle engine costs."""

from __future__ import annotations

import asyncio
import sys
import time

import perdure
from bench import workflows as w
from bench.engine import fresh, opened
from bench.figure import Figure, median, quantile

TIMES = 60
IDLE_S = 6.0


def waking() -> list[Figure]:
    taken = fresh(_signals)
    idle = fresh(_idle)
    return [
        Figure("signal", "from another process to the next step, p50", f"p99 {quantile(taken, 0.99) * 1e3:.0f} ms",
               median(taken) * 1e3, "ms", 60),
        Figure("idle", "CPU of an engine with nothing to do", "1,000 runs wait", idle * 100, "%", 1),
    ]  # fmt: skip


async def _signals(folder: str) -> list[float]:
    """Seconds from the call of `signal` in the other process until the task of the next step runs."""
    async with opened(folder) as engine:
        handle = await engine.start(w.chatter, TIMES, id="chat")
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.waking", folder, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await sender.communicate()
        begun: list[float] = await handle.result(30)
    sent = [float(text) for text in out.split()]
    return [step - call for call, step in zip(sent, begun, strict=True)]


def _send(folder: str) -> None:
    """Signals, spread over the phases of whatever beats in the engine."""
    with perdure.connect(f"sqlite:///{folder}/bench.db") as client:
        chat = client.get("chat")
        for number in range(TIMES):
            time.sleep(0.05 + 0.0137 * (number % 7))
            print(time.monotonic())
            chat.signal("say", number)


async def _idle(folder: str) -> float:
    """Seconds of processor time for each second in which nothing happens, beside 1,000 runs that wait."""
    async with opened(folder) as engine:
        await asyncio.gather(*[engine.start(w.sleeper, 86_400.0) for _ in range(500)])
        await asyncio.gather(*[engine.start(w.listener) for _ in range(500)])
        await asyncio.sleep(1)
        used, begun = time.process_time(), time.perf_counter()
        await asyncio.sleep(IDLE_S)
        return (time.process_time() - used) / (time.perf_counter() - begun)


if __name__ == "__main__":
    _send(sys.argv[1])
