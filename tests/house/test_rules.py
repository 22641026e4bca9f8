"""Each rule of a run (S1 to S30) has a test that names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
RULES = set(range(1, 31))
NUMBER = re.compile(r"\bS(\d{1,2})\b|^test_s(\d{1,2})_")


def named(path: Path) -> Iterator[int]:
    """The rules that the tests of a file name, in their own names and goals."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for text in (node.name, ast.get_docstring(node) or ""):
                yield from (int(one or other) for one, other in NUMBER.findall(text))


def test_each_rule_is_named_by_a_test() -> None:
    """Goal: whoever changes a rule finds what tests it, and no rule is forgotten."""
    found = {rule for path in TESTS.rglob("test_*.py") for rule in named(path)}
    assert found & RULES == RULES, f"no test names S{', S'.join(map(str, sorted(RULES - found)))}"
    assert found <= RULES, f"there is no rule S{', S'.join(map(str, sorted(found - RULES)))}"
