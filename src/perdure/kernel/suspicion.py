"""Who is suspected after a row of deaths, purely (S15)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DEATHS_MIN = 2
ALONE_MAX = 3


class Suspicion(NamedTuple):
    """Shape: `back` are runs to be kept back now; `condemned` those that go to attention."""

    back: frozenset[str]
    condemned: frozenset[str]


NOBODY = Suspicion(frozenset(), frozenset())


def judge(deaths: Sequence[tuple[tuple[str, ...], bool]]) -> Suspicion:
    """What the deaths in a row say, newest first, each with the runs it carried and whether it came to anything.

    A death that came to something (an outcome, or a minute of life) accuses nobody and ends the row. With two or more
    that did not, the suspects are the runs that every one of the row carried; half of them are carried next.
    """
    row: list[frozenset[str]] = []
    suspects: frozenset[str] = frozenset()
    for carried, harmless in deaths:
        # Going back from the newest death, the suspects narrow as halves were carried; who was not in all is cleared.
        narrowed = suspects.intersection(carried) if row else frozenset(carried)
        if harmless or not narrowed:
            break  # a death without any of them had another cause
        suspects = narrowed
        row.append(frozenset(carried))
    if len(row) < DEATHS_MIN:
        return NOBODY
    alone = 0
    for one in row:
        if one != suspects:
            break
        alone += 1
    if len(suspects) == 1:
        if alone >= ALONE_MAX:
            return Suspicion(frozenset(), suspects)
        return Suspicion(_others(row, suspects), frozenset())
    ordered = sorted(suspects)
    first_half = frozenset(ordered[: (len(ordered) + 1) // 2])
    return Suspicion(_others(row, suspects) | (suspects - first_half), frozenset())


def _others(row: Sequence[frozenset[str]], suspects: frozenset[str]) -> frozenset[str]:
    """Former suspects outside the half that was carried last: kept back until that half has shown itself."""
    return frozenset().union(*row) - suspects
