"""Ways to break a valid subject. Each takes a subject and gives a broken one.

A forger (`forge`) edits facts, then numbers and chains them anew and sets the row to their fold, so that only the
invariant in question can tell; `raw` edits are those of a disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.kernel.audit import Subject
from perdure.kernel.fold import fold
from perdure.model import fact as f
from tests.kernel.audit_builders import chained, row_of

Facts = list[f.AnyFact]
Mutant = Callable[[Subject], Subject]


def forge(edit: Callable[[Facts], object]) -> Mutant:
    """Edit the facts, then make all that is derived from them fit."""

    def mutate(subject: Subject) -> Subject:
        facts: Facts = [f.decode_fact(recorded.body) for recorded in subject.facts]
        edit(facts)
        recorded = chained(facts)
        row, old = row_of(recorded, subject.row.id, subject.row.wait, graph=subject.graph is not None), subject.row
        row.asked_n, row.asked_h, row.epoch = old.asked_n, old.asked_h, max(row.epoch, old.epoch)
        row.outcome = row.outcome if fold(recorded, illegal=[]).attention is None else old.outcome
        return msgspec.structs.replace(subject, facts=recorded, row=row)

    return mutate


def edit(seq: int, **fields: Any) -> Mutant:
    """Set fields of one fact."""

    def change(facts: Facts) -> None:
        for name, value in fields.items():
            setattr(facts[seq - 1], name, value)

    return forge(change)


def drop(seq: int) -> Mutant:
    return forge(lambda facts: facts.pop(seq - 1))


def insert(before: int, fact: Callable[[Facts], f.AnyFact]) -> Mutant:
    """Put a fact in front of another one."""
    return forge(lambda facts: facts.insert(before - 1, fact(facts)))


def again(seq: int, before: int, **fields: Any) -> Mutant:
    """Put a copy of a fact, with other fields, in front of another one."""
    return insert(
        before, lambda facts: msgspec.structs.replace(facts[seq - 1], **({"at": facts[before - 2].at} | fields))
    )


def swap(one: int, other: int) -> Mutant:
    """Exchange two facts, each keeping the time of its place."""

    def change(facts: Facts) -> None:
        a, b = facts[one - 1], facts[other - 1]
        a.at, b.at = b.at, a.at
        facts[one - 1], facts[other - 1] = b, a

    return forge(change)


def raw(change: Callable[[list[f.Recorded]], object]) -> Mutant:
    """Edit what is stored, and nothing else."""

    def mutate(subject: Subject) -> Subject:
        recorded = [msgspec.structs.replace(one) for one in subject.facts]
        change(recorded)
        return msgspec.structs.replace(subject, facts=recorded)

    return mutate


def flip(seq: int, place: int, field: str = "body") -> Mutant:
    """Flip a bit of a stored body or hash; the fact is what was read before."""

    def change(recorded: list[f.Recorded]) -> None:
        data = bytearray(getattr(recorded[seq - 1], field))
        data[place] ^= 1
        setattr(recorded[seq - 1], field, bytes(data))

    return raw(change)


def row(**fields: Any) -> Mutant:
    return lambda subject: msgspec.structs.replace(subject, row=msgspec.structs.replace(subject.row, **fields))


def replayed(**fields: Any) -> Mutant:
    """Set fields of what came of the replay."""
    return lambda subject: msgspec.structs.replace(subject, replay=msgspec.structs.replace(subject.replay, **fields))


def given(**fields: Any) -> Mutant:
    return lambda subject: msgspec.structs.replace(subject, **fields)


def child(**fields: Any) -> Mutant:
    """Set fields of the child's row."""

    def mutate(subject: Subject) -> Subject:
        kid = msgspec.structs.replace(subject.children["kid"], **fields)
        return msgspec.structs.replace(subject, children={"kid": kid})

    return mutate


def node(name: str, **fields: Any) -> Mutant:
    """Set fields of one node of the graph's definition."""

    def mutate(subject: Subject) -> Subject:
        assert subject.graph is not None
        nodes = tuple(
            msgspec.structs.replace(one, **fields) if one.name == name else one for one in subject.graph.nodes
        )
        return msgspec.structs.replace(subject, graph=msgspec.structs.replace(subject.graph, nodes=nodes))

    return mutate


def both(*mutants: Mutant) -> Mutant:
    def mutate(subject: Subject) -> Subject:
        for mutant in mutants:
            subject = mutant(subject)
        return subject

    return mutate
