"""A figure that was measured, beside its target; and the table of all of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Figure:
    """Shape: `value` and `target` in `unit`, as "L" or "R" where the target is a ratio to a limit; `raw` is what was
    measured in plain units; `most`: the target is an upper bound; no target: for information.
    """

    row: str
    what: str
    raw: str
    value: float
    unit: str
    target: float | None = None
    most: bool = True

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.most else self.value >= self.target

    def cells(self) -> tuple[str, str, str, str, str, str]:
        sign = "" if self.target is None else ("≤ " if self.most else "≥ ")
        target = "" if self.target is None else f"{sign}{shown(self.target)} {self.unit}".rstrip()
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return self.row, self.what, self.raw, f"{shown(self.value)} {self.unit}".rstrip(), target, verdict


def shown(value: float) -> str:
    """Three figures that matter."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


HEAD = ("row", "what", "measured", "figure", "target", "")
WIDTHS = (8, 52, 26, 14, 14, 6)


def line(cells: Sequence[str]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def as_json(figures: Iterable[Figure], about: dict[str, Any]) -> str:
    rows = [{**asdict(figure), "met": figure.met} for figure in figures]
    return json.dumps({"about": about, "figures": rows}, indent=1)
