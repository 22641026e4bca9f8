"""What the audit found: four conditions, the checks of each, and every violation with the fact that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from perdure.model.text import escape

ConditionName = Literal["completeness", "ordering", "atomicity", "consistency"]
CONDITIONS: Final[tuple[ConditionName, ...]] = ("completeness", "ordering", "atomicity", "consistency")

# A damaged history breaks a check at every fact; more examples than these tell nothing new.
VIOLATIONS_KEPT: Final = 100
_SHOWN: Final = 300


class Violation(msgspec.Struct, frozen=True):
    """One broken invariant. Shape: `seq` is the fact that shows it; None where the row or an absence does."""

    check: str
    seq: int | None
    text: str

    def __str__(self) -> str:
        place = "" if self.seq is None else f" at fact {self.seq}"
        return f"{self.check}{place}: {escape(self.text, _SHOWN)}"


class Check(msgspec.Struct):
    """One invariant.

    Shape: `name` begins with the invariant's id; `checked` counts what was looked at, `broken` all violations.
    """

    condition: ConditionName
    name: str
    checked: int = 0
    broken: int = 0
    violations: list[Violation] = []

    def add(self, seq: int | None, text: str) -> None:
        """Note a violation; past the bound it is only counted."""
        self.broken += 1
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(Violation(self.name, seq, text))

    def hold(self, true: bool, seq: int | None, text: str) -> None:
        """Count one thing looked at, and note a violation where it does not hold."""
        self.checked += 1
        if not true:
            self.add(seq, text)


class AuditReport(msgspec.Struct, frozen=True):
    """What the audit of one run, or of a store, came to."""

    subject: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return not any(check.broken for check in self.checks)

    @property
    def violations(self) -> list[Violation]:
        """All that were kept, in the order of the conditions and their checks."""
        return [violation for check in self.checks for violation in check.violations]

    @property
    def first(self) -> Violation | None:
        """The violation that is shown by the earliest fact; one that no fact shows comes last."""
        found = self.violations
        return min(found, key=lambda v: (v.seq is None, v.seq or 0)) if found else None

    def of(self, condition: ConditionName) -> list[Check]:
        """The checks of one condition."""
        return [check for check in self.checks if check.condition == condition]

    def lines(self) -> list[str]:
        """The report for people: each condition with what it checked, each violation with its fact."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        broken = sum(check.broken for check in self.checks)
        verdict = "correct" if self.ok else f"{broken:,} violation{'s' * (broken != 1)}"
        yield f"{escape(self.subject)}: {verdict}"
        for condition in CONDITIONS:
            checks = self.of(condition)
            if checks:
                holds = all(not check.broken for check in checks)
                yield f"  {condition}: {'holds' if holds else 'BROKEN'}"
                for check in checks:
                    yield from _check_lines(check)


def _check_lines(check: Check) -> Iterator[str]:
    mark = "ok " if not check.broken else "BAD"
    yield f"    {mark} {check.name} ({check.checked:,} checked)"
    for violation in check.violations:
        place = "" if violation.seq is None else f"fact {violation.seq}: "
        yield f"          {place}{escape(violation.text, _SHOWN)}"
    if check.broken > len(check.violations):
        yield f"          and {check.broken - len(check.violations):,} more"
