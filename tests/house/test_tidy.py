"""The rules of the house that no other tool holds: sizes, sleeps, SQL, names, single-file imports, foreign words."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "perdure"
TREES = (ROOT / "src", ROOT / "tests", ROOT / "demo", ROOT / "bench")

FILE_LINES = 500
FUNCTION_LINES = 60
PUBLIC_METHODS = 15
PROTOCOL_METHODS = 8
POSITIONAL = 5
ROOM_DOCSTRING_LINES = 10

NO_NAMES = {"base", "bases", "common", "core", "helper", "helpers", "misc", "util", "utils"}
LOOP_FILES = re.compile(r"(flow|loop|futures)\.py")
STORE_FILES = re.compile(r"(sqlite|postgres)\w*\.py")  # in state/: these speak to a database
DRIVERS = {
    "apsw": re.compile(r"state/sqlite\w*\.py"),
    "sqlite3": re.compile(r"state/sqlite\w*\.py"),
    "asyncpg": re.compile(r"state/postgres\w*\.py"),
}
SLEEPS = {"time.sleep", "asyncio.sleep"}
MAY_SLEEP = re.compile(r"#.*\b(durable|work)\b")
SQL = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)\s|"
    r"^\s*(select\s.+\sfrom|insert\s+(or\s+\w+\s+)?into|update\s+\w+\s+set|delete\s+from|create\s+(unique\s+)?(table|index))\b",
    re.DOTALL,
)
TRANSACTION = re.compile(r"^\s*(PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)\b")

LOOP_METHODS = set(dir(asyncio.AbstractEventLoop))  # an event loop is as wide as asyncio made it

type_of_function = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def sources(*trees: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for tree in trees for path in tree.rglob("*.py") if "__pycache__" not in path.parts))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def at(path: Path, node: ast.stmt | ast.expr) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, type_of_function))


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def methods(node: ast.ClassDef) -> dict[str, Function]:
    """The methods that a class defines itself; overloads and setters count once."""
    return {child.name: child for child in node.body if isinstance(child, type_of_function)}


def is_protocol(node: ast.ClassDef) -> bool:
    bases = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return any(dotted(base).rpartition(".")[2] == "Protocol" for base in bases)


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Every import below this node, as the statement and the module that it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, node.module or ""


# --- sizes --------------------------------------------------------------------------------------------------------


def long_files(path: Path) -> Iterator[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > FILE_LINES:
        yield f"{path.relative_to(ROOT)}: {lines} lines, at most {FILE_LINES}"


def long_functions(path: Path) -> Iterator[str]:
    for node in functions(parsed(path)):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES:
            yield f"{at(path, node)}: {node.name} has {lines} lines, at most {FUNCTION_LINES}"


def wide_classes(path: Path) -> Iterator[str]:
    for node in classes(parsed(path)):
        inherited = (
            LOOP_METHODS if "AbstractEventLoop" in {dotted(base).rpartition(".")[2] for base in node.bases} else set()
        )
        public = [name for name in methods(node) if not name.startswith("_") and name not in inherited]
        bound = PROTOCOL_METHODS if is_protocol(node) else PUBLIC_METHODS
        if len(public) > bound:
            yield f"{at(path, node)}: {node.name} has {len(public)} public methods, at most {bound}"


def many_positionals(path: Path) -> Iterator[str]:
    for node in functions(parsed(path)):
        taken = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        count = len(taken) - (taken[:1] in (["self"], ["cls"]))
        if count > POSITIONAL:
            yield f"{at(path, node)}: {node.name} takes {count} positional parameters, at most {POSITIONAL}"


# --- what may stand where -------------------------------------------------------------------------------------------


def hidden_imports(path: Path) -> Iterator[str]:
    for function in functions(parsed(path)):
        for node, module in imports(function):
            yield f"{at(path, node)}: {function.name} imports {module} inside itself"


def sleeps(path: Path) -> Iterator[str]:
    """A test waits for facts. A sleep that is a flow's durable one, or a task's work, says so on its line."""
    text = path.read_text(encoding="utf-8").splitlines()
    tree = parsed(path)
    bare = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or bare.get(dotted(node.func), dotted(node.func)) not in SLEEPS:
            continue
        is_yield = [ast.unparse(arg) for arg in node.args[:1]] == ["0"]
        lines = text[node.lineno - 1 : node.end_lineno]
        if not is_yield and not any(MAY_SLEEP.search(line) for line in lines):
            yield f"{at(path, node)}: sleeps; wait for a fact, or say `# durable` or `# work`"


def strings(path: Path) -> Iterator[ast.Constant]:
    """The string constants of a file that are not docstrings."""
    tree = parsed(path)
    loose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in loose:
            yield node


def sql_text(path: Path) -> Iterator[str]:
    store = path.parent == SRC / "state" and STORE_FILES.fullmatch(path.name)
    for node in strings(path):
        if SQL.search(str(node.value)):
            yield f"{at(path, node)}: SQL lives in state/sql/*.sql"
        elif TRANSACTION.search(str(node.value)) and not store:
            yield f"{at(path, node)}: only state/sqlite*.py and postgres*.py say PRAGMA, BEGIN and COMMIT"


def foreign_loops(path: Path) -> Iterator[str]:
    if path.parent != SRC / "kernel" or LOOP_FILES.fullmatch(path.name):
        return
    for node, module in imports(parsed(path)):
        if module.partition(".")[0] == "asyncio":
            yield f"{at(path, node)}: in the kernel only flow.py, loop.py and futures.py import asyncio"


def foreign_drivers(path: Path) -> Iterator[str]:
    room = path.relative_to(SRC).as_posix() if path.is_relative_to(SRC) else path.name
    for node, module in imports(parsed(path)):
        files = DRIVERS.get(module.partition(".")[0])
        if files and not files.fullmatch(room):
            yield f"{at(path, node)}: only {files.pattern} imports {module}"


def loose_names(path: Path) -> Iterator[str]:
    inside = path.relative_to(ROOT)
    if NO_NAMES & {*inside.parts[1:-1], inside.stem}:
        yield f"{inside}: name it for its subject"


ALL, IN_SRC, IN_TESTS = TREES, (ROOT / "src",), (ROOT / "tests",)
RULES: tuple[tuple[Callable[[Path], Iterator[str]], tuple[Path, ...]], ...] = (
    (long_files, ALL),
    (long_functions, ALL),
    (wide_classes, ALL),
    (many_positionals, ALL),
    (loose_names, ALL),
    (hidden_imports, IN_SRC),
    (sql_text, IN_SRC),
    (foreign_loops, IN_SRC),
    (foreign_drivers, IN_SRC),
    (sleeps, IN_TESTS),
)


@pytest.mark.parametrize("rule, trees", RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_no_file_breaks(rule: Callable[[Path], Iterator[str]], trees: tuple[Path, ...]) -> None:
    """Goal: the sizes and places of conventions stay true without anyone watching."""
    broken = [line for path in sources(*trees) for line in rule(path)]
    assert not broken, "\n" + "\n".join(broken)


def test_every_room_says_what_it_owns() -> None:
    """Goal: a reader who opens a folder is told in ten lines what it is for."""
    rooms = sorted({path.parent for path in sources(SRC)})
    broken = []
    for room in rooms:
        front = room / "__init__.py"
        said = ast.get_docstring(parsed(front)) if front.exists() else None
        if not said or len(said.splitlines()) > ROOM_DOCSTRING_LINES:
            broken.append(f"{front.relative_to(ROOT)}: a docstring of one to {ROOM_DOCSTRING_LINES} lines")
    assert not broken, "\n" + "\n".join(broken)


# --- foreign words --------------------------------------------------------------------------------------------------

# Built from pieces, so that this file does not name what it forbids.
FOREIGN = re.compile(
    "|".join(
        (
            r"pypi\." + "org",
            "python" + "hosted",
            "npmjs" + r"\.(org|com)",
            r"deb\." + r"debian\.org",
            "cdn-fastly" + r"\.deb",
            r"(?<![\w.}])/" + "work/",
            r"\.\./" + "shared/",
            r"\." + "library/",
            "farm" + "-(bench|studio)",
        )
    )
)
SKIPPED = {".git", ".venv", "build", "dist", "node_modules", "__pycache__"}


def texts() -> Iterator[Path]:
    """The files that belong to the project: what git would keep, or all that is there where git is not."""
    asked = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [p for p in ROOT.rglob("*") if not any(part in SKIPPED or part.endswith("_cache") for part in p.parts)]
    return (path for path in paths if path.is_file())


def test_no_file_names_a_foreign_place() -> None:
    """Goal: the project works wherever it is cloned, and names no registry and no path of a workplace."""
    broken = []
    for path in texts():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = FOREIGN.search(text)
        if found:
            line = text.count("\n", 0, found.start()) + 1
            broken.append(f"{path.relative_to(ROOT)}:{line}: names {found.group()!r}")
    assert not broken, "\n" + "\n".join(broken)


# --- the rules themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule, text",
    [
        (long_functions, "def f():\n" + "    x = 1\n" * FUNCTION_LINES),
        (wide_classes, "class C:\n" + "".join(f"    def m{n}(self): ...\n" for n in range(PUBLIC_METHODS + 1))),
        (wide_classes, "class C(Protocol):\n" + "".join(f"    def m{n}(self): ...\n" for n in range(9))),
        (many_positionals, "def f(a, b, c, d, e, f): ...\n"),
        (hidden_imports, "def f():\n    import json\n"),
        (sleeps, "from asyncio import sleep\nasync def f():\n    await sleep(0.1)\n"),
        (sleeps, "import time\ntime.sleep(1)\n"),
        (sql_text, "x = 'SELECT 1 FROM run'\n"),
        (sql_text, "x = f'delete from run where id = {1}'\n"),
        (sql_text, "x = 'PRAGMA user_version'\n"),
        (foreign_drivers, "import apsw\n"),
        (foreign_drivers, "from asyncpg import pool\n"),
    ],
)
def test_a_rule_sees_what_it_forbids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Callable[[Path], Iterator[str]], text: str
) -> None:
    """Goal: a rule that has gone blind fails here."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "seen.py"
    path.write_text(text, encoding="utf-8")
    assert list(rule(path))


@pytest.mark.parametrize(
    "rule, text",
    [
        (sleeps, "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n"),
        (sleeps, "import asyncio\nasync def f():\n    await asyncio.sleep(60)  # durable\n"),
        (many_positionals, "class C:\n    def f(self, a, b, c, d, e, *, g): ...\n"),
        (sql_text, '"""SELECT is only spoken of here."""\nx = "select a run, then update it"\n'),
    ],
)
def test_a_rule_leaves_the_rest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: Callable[[Path], Iterator[str]], text: str
) -> None:
    """Goal: a rule forbids no more than it says."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "seen.py"
    path.write_text(text, encoding="utf-8")
    assert not list(rule(path))
