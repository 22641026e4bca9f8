"""Part 1: a graph that reads documents, fans out over them, and writes a report of their most frequent words."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from perdure import graph, task

WORD = re.compile(r"[a-z][a-z'-]+")
NAME = re.compile(r"[\w.-]+")
LICENCE = re.compile(r"licen[cs]e|copying|notice", re.IGNORECASE)
COMMON = frozenset(
    re.findall(
        r"\w+",
        """a an and any are as at be but by can do for from has have if in into is it its may not of on or other out so
        such than that the their them then there these this to under was what when which who will with you your""",
    )
)
SHOWN = 25


@dataclass(frozen=True)
class Counted:
    """The words of one document."""

    document: str
    words: dict[str, int]


@task
def find_documents(root: str) -> list[str]:
    """This project's own pages, and the licences of the packages that it stands on."""
    here = Path(root)
    own = [*here.glob("*.md"), here / "LICENSE", *(here / "docs").rglob("*.md")]
    licences = [path for name in sorted(needed("perdure")) for path in licences_of(name)]
    return [str(path) for path in (*sorted(own), *licences) if path.is_file()]


def needed(name: str) -> set[str]:
    """The packages that are needed by one, extras included, as far as they are installed."""
    found: set[str] = set()
    left = [name]
    while left:
        for requirement in metadata.requires(left.pop()) or []:
            known = NAME.match(requirement)
            if known and known[0].lower() not in found and installed(known[0]):
                found.add(known[0].lower())
                left.append(known[0])
    return found


def installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def licences_of(name: str) -> list[Path]:
    files = metadata.distribution(name).files or []
    return sorted(Path(str(file.locate())) for file in files if LICENCE.search(file.name) and file.suffix != ".py")


@task
def count_words(document: str) -> Counted:
    """One step for each document."""
    text = Path(document).read_text(encoding="utf-8", errors="replace").lower()
    return Counted(document, dict(Counter(WORD.findall(text))))


@task
def merge(counted: list[Counted]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counted:
        total.update(one.words)
    return dict(total.most_common())


@task
def write_report(words: dict[str, int], documents: list[str], out: str) -> str:
    """The report as a page; written whole or not at all, so that twice is as once."""
    rows = [f"| {word} | {count} |" for word, count in words.items() if word not in COMMON][:SHOWN]
    lines = [
        f"# Words of {len(documents)} documents", "", f"{sum(words.values()):,} words, {len(words):,} different.", "",
        "| word | times |", "|---|---|", *rows,
    ]  # fmt: skip
    path, temporary = Path(out), Path(f"{out}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)
    return str(path)


@task
def complain(root: str) -> str:
    return f"there are no documents in {root}"


@graph
def words(root: str, out: str):
    documents = find_documents(root)
    total = merge(count_words.map(documents))
    complain(root).when(lambda find_documents: not find_documents)
    return write_report(total, documents, out)
