"""What does not verify in a run's rows: a gap, a broken chain, a row that says otherwise than its facts."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.model.fact import CHAIN_START, chain


def damage_of(
    facts: Sequence[tuple[int, bytes, bytes]], before: tuple[int, bytes] | None, last: tuple[int, bytes]
) -> str:
    """The first thing that is wrong with these facts; empty: nothing.

    Shape: `facts` are (seq, body, hash); `before` is the (seq, hash) of the fact that they follow, None where that
           fact is missing; `last` is what the run's row says of its last fact.
    """
    if before is None:
        return f"the fact before {facts[0][0] if facts else last[0] + 1} is missing"
    seq, head = before
    for number, body, digest in facts:
        if number != seq + 1:
            return f"after fact {seq} comes fact {number}"
        head = chain(head, body)
        if head != digest:
            return f"fact {number} does not match its chain hash"
        seq = number
    if seq != last[0]:
        return f"the run's row says that fact {last[0]} is the last, but {seq} is"
    if head != last[1]:
        return f"the run's row holds another hash than its last fact, {seq}"
    return ""


START = (0, CHAIN_START)
