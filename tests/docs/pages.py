"""The pages as tests see them: their blocks, the programs among these, their links and their generated parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```(\S*) *(.*)$")
_NAME = re.compile(r"^# ([\w.-]+\.(?:py|yaml|json))$")
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$")


def pages() -> list[Path]:
    """Every page that users read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


class Block(NamedTuple):
    """A fenced block. Shape: `line` counts from 1; `flags` are the words behind the language."""

    page: Path
    line: int
    language: str
    flags: frozenset[str]
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that the block is: what its first line says as a comment."""
        found = _NAME.match(self.text.partition("\n")[0])
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        at += 1
        if opened is None:
            continue
        begin, indent = at, len(opened[1])
        while at < len(lines) and lines[at].strip() != "```":
            at += 1
        text = "".join(f"{line[indent:]}\n" for line in lines[begin:at])
        yield Block(page, begin, opened[2], frozenset(opened[3].split()), text)
        at += 1


class Command(NamedTuple):
    """A line of a console block, and what it is said to print: `…` stands for anything."""

    line: str
    printed: str


def commands(block: Block) -> Iterator[Command]:
    line, printed = None, ""
    for text in block.text.splitlines():
        if text.startswith("$ "):
            if line is not None:
                yield Command(line, printed)
            line, printed = text[2:], ""
        elif line is not None:
            printed += f"{text}\n"
    if line is not None:
        yield Command(line, printed)


def matches(expected: str, got: str) -> bool:
    """Whether what was printed is what is said, with `…` for anything; white space at the ends of lines is ignored."""
    wanted = [re.escape(part) for part in _plain(expected).split("…")]
    return re.fullmatch("(?s:.*?)".join(wanted), _plain(got)) is not None


def _plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    kept, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def links(page: Path) -> list[str]:
    return _LINK.findall(re.sub(r"`[^`\n]*`", "``", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    found: dict[str, int] = {}
    names = set()
    for line in prose(page).splitlines():
        heading = _HEADING.match(line)
        if heading:
            plain = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            count = found[plain] = found.get(plain, -1) + 1
            names.add(plain if count == 0 else f"{plain}-{count}")
    return names
