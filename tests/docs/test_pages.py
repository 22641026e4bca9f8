"""What the pages say beside their programs: links, names, tables that follow from the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import perdure
from perdure import errors
from perdure.model.fact import Cause
from perdure.model.run import STATUSES
from tests.docs.generated import script
from tests.docs.pages import ROOT, anchors, blocks, links, name_of, pages, prose
from tests.docs.test_programs import environment

PAGES = pages()
NAMED_TEST = re.compile(r"`(tests/[\w/.-]+\.py)(?:::(\w+))?`")
MACHINE = re.compile(
    r"(?<![\w.<])/(?:home|root|Users|tmp|var/folders)/\w|(?:https?://)?(?:[\w-]+\.)*(?:pypi|npmjs)\.\w+", re.IGNORECASE
)
# The faults that this version answers for.
ANSWERED = (
    "F01 F02 F03 F04 F05 F08 F10 F11 F12 F13 F15 F16 F17 F19 F20 F21 F23 F24 F26 F27 F28 F44 F45 F46 F47 F48 F49 F50 "
    "F71 F72 F74 F75 F76 F77 F78 F80 F81 F82 F83 F84 F85 F90 F91 F97 F98 F99 F103"
)  # fmt: skip


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Goal: a link to another page, and to a heading in it, works."""
    broken = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists():
            broken.append(f"{link}: there is no such file")
        elif anchor and anchor not in anchors(target):
            broken.append(f"{link}: there is no such heading")
    assert not broken


def test_every_page_is_reached_from_the_index() -> None:
    """Goal: no page lies hidden."""
    reached, left = set[Path](), [ROOT / "README.md"]
    while left:
        one = left.pop()
        if one in reached:
            continue
        reached.add(one)
        found = [
            (one.parent / link.partition("#")[0]).resolve() for link in links(one) if not re.match(r"[a-z]+:", link)
        ]
        left.extend(path for path in found if path.suffix == ".md" and path.exists())
    assert not {name_of(path) for path in PAGES} - {name_of(path) for path in reached}


def test_settings_help_and_names_are_those_of_the_code() -> None:
    """Goal: a setting, option or name that comes, goes or changes is on its page (scripts/docs writes it)."""
    made = script("docs")
    assert made.between(page("docs/operating.md"), "settings", made.settings_table()) == page("docs/operating.md")
    assert made.between(page("docs/command-line.md"), "help", made.help_pages()) == page("docs/command-line.md")
    signatures = re.findall(r"^\| (`.+?`) \|", made.reference(), re.MULTILINE)
    assert signatures == re.findall(r"^\| (`.+?`) \|", page("docs/reference.md"), re.MULTILINE)
    assert made.guarantees_table() in page("README.md")


@cache
def names_in(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_tests_that_a_page_names_exist(path: Path) -> None:
    """Goal: a promise is never proved by a test that has gone."""
    missing = []
    for file, test in NAMED_TEST.findall(path.read_text(encoding="utf-8")):
        if not (ROOT / file).exists() or (test and test not in names_in(ROOT / file)):
            missing.append(f"{file}::{test}".rstrip(":"))
    assert not missing


def test_every_fault_has_its_row() -> None:
    """Goal: each fault that this version answers for is on the page, once, with tests that name it."""
    rows = dict(re.findall(r"^\| (F\d+) \|(.+)\|$", page("docs/faults.md"), re.MULTILINE))
    assert set(ANSWERED.split()) <= rows.keys()
    naming = script("docs").tests_of_faults()
    for number, said in rows.items():
        for file, test in NAMED_TEST.findall(said):
            assert f"{file}::{test}".rstrip(":") in naming.get(number, []), (
                f"{number}: {file} does not name it any more"
            )


def test_public_names_are_documented() -> None:
    """Goal: every name that a user may import stands in the reference, and on a page that shows its use."""
    reference = page("docs/reference.md")
    assert not [name for name in perdure.__all__ if f"| `{name}" not in reference]


def test_every_error_is_explained() -> None:
    """Goal: who meets an error finds what to do about it."""
    kinds = {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, BaseException) and kind.__module__ == errors.__name__
    }
    told = page("docs/errors.md")
    assert not [name for name in sorted(kinds) if f"`{name}`" not in told and f"`perdure.{name}`" not in told]


def test_every_status_and_every_reason_for_attention_is_explained() -> None:
    """Goal: the words that a run shows are on a page."""
    concepts, told = page("docs/concepts.md"), page("docs/errors.md")
    assert not [status for status in STATUSES if f"| `{status}` |" not in concepts]
    missing = [cause for cause in Cause.__args__ if f"| `{cause}` |" not in told]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_page_names_a_machine(path: Path) -> None:
    """Goal: pages hold no path of somebody's machine and no address of a registry."""
    assert not MACHINE.search(path.read_text(encoding="utf-8"))


def test_what_the_readme_shows_of_a_kill_is_what_happens(tmp_path: Path) -> None:
    """Goal: the program of the README, killed and started again, keeps what was recorded and makes the rest."""
    program = next(block for block in blocks(ROOT / "README.md") if block.file == "album.py")
    (tmp_path / "album.py").write_text(program.text, encoding="utf-8")
    command = [sys.executable, "album.py"]
    first = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    seen = [first.stdout.readline() for _ in range(3)]
    first.kill()
    seen += first.communicate()[0].splitlines(keepends=True)
    again = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    kept = re.search(r"resumed run album-\w+: (\d+) steps? kept", again.stderr)
    assert kept, again.stderr
    assert int(kept[1]) in {len(seen), len(seen) - 1}  # what was printed last may not have been recorded
    assert again.stdout.splitlines()[-1] == "6 photos"
    assert len(again.stdout.splitlines()) == 6 - int(kept[1]) + 1
    verified = subprocess.run(
        [sys.executable, "-m", "perdure", "verify", "--json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert json.loads(verified.stdout)["ok"]


def test_the_bench_table_goes_between_its_marks() -> None:
    """Goal: what was measured lands in the README, and nothing else of it changes."""
    made = script("bench-table")
    figure = {
        "row": "W1",
        "what": "a step",
        "raw": "0.2 ms",
        "value": 1.2,
        "unit": "L",
        "target": 1.5,
        "most": True,
        "met": True,
    }
    text = made.placed(page("README.md"), made.table({"about": {"cores": 2}, "figures": [figure]}))
    assert "| W1 | a step | 0.2 ms | 1.2 L | ≤ 1.5 L | met |" in text
    before, after = page("README.md").split(made.BEGIN)[0], page("README.md").split(made.END)[1]
    assert text.startswith(before)
    assert text.endswith(after)


def test_the_rules_above_see_what_they_forbid(tmp_path: Path) -> None:
    """Goal: a rule that has gone blind fails here."""
    wrong = tmp_path / "page.md"
    wrong.write_text("# A head\n[a](#b) `tests/no.py::test_x` /home/me/x\n", encoding="utf-8")
    assert links(wrong) == ["#b"]
    assert anchors(wrong) == {"a-head"}
    assert NAMED_TEST.findall(prose(wrong)) == [("tests/no.py", "test_x")]
    assert MACHINE.search(prose(wrong))
