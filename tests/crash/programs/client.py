"""A client that asks for runs, signals and cancels, says much of it twice, and notes what was acknowledged.

python -m tests.crash.programs.client STORE NAME: goes on until there is a file `enough`; started again after a death, it
asks for what was not acknowledged.
"""

from __future__ import annotations

import sys
from itertools import count, takewhile
from typing import Any

import perdure
from perdure import PerdureError
from perdure.errors import StoreUnavailable
from tests.crash.programs import waits
from tests.crash.witness import folder, note, notes

TRIES = 200


def patiently(ask: Any) -> Any:
    """Ask until it is acknowledged: a store that cannot be written now may be so later."""
    for _ in range(TRIES):
        try:
            return ask()
        except StoreUnavailable:
            continue
    raise PerdureError("the store took nothing, again and again")


def main(address: str, name: str) -> None:
    said = {words[1]: words[2] for words in notes("acks")}
    with perdure.connect(address, workflows=[waits]) as client:
        for number in takewhile(lambda _: not (folder() / "enough").exists(), count()):
            request = f"{name}-{number}"
            if f"{request}-start" not in said:
                run = patiently(
                    lambda r=request: client.start(waits.counts, 2, tags={"of": r}, request_id=f"{r}-start")
                )
                again = patiently(
                    lambda r=request: client.start(waits.counts, 2, tags={"of": r}, request_id=f"{r}-start")
                )
                note("acks", "start", f"{request}-start", run.id)
                assert run.id == again.id, f"{run} and {again}"
                said[f"{request}-start"] = run.id
            handle = client.get(said[f"{request}-start"])
            if number % 4 == 3:
                ask(said, f"{request}-cancel", lambda r, h=handle: h.cancel("enough", request_id=r))
            else:
                for value in (10, 20):
                    ask(said, f"{request}-go-{value}", lambda r, h=handle, v=value: h.signal("go", v, request_id=r))


def ask(said: dict[str, str], request: str, act: Any) -> None:
    """Say it, and say it again, unless that was acknowledged before."""
    if request not in said:
        patiently(lambda: act(request))
        note("acks", "ask", request, "-")
        patiently(lambda: act(request))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    print("done")
