"""What an engine cannot write: files to which tasks and clients append what they did, each line synced at once.

Programs that a test starts find the folder in WITNESS.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def folder() -> Path:
    return Path(os.environ["WITNESS"])


def note(file: str, *words: object) -> None:
    """Append one line; it is on the disk when this returns."""
    opened = os.open(folder() / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(opened, " ".join(map(str, words)).encode() + b"\n")
        os.fsync(opened)
    finally:
        os.close(opened)


def notes(file: str, where: Path | None = None) -> list[list[str]]:
    """The lines of a file, as words; a line that death cut short does not count."""
    path = (where or folder()) / file
    if not path.exists():
        return []
    return [line.split(" ") for line in path.read_text().split("\n")[:-1]]


def first(token: str) -> bool:
    """True once for each token, whichever process asks."""
    try:
        os.close(os.open(folder() / f"token-{token}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def die(where: str) -> None:
    """Die as by SIGKILL, once, if the test asked for a death here."""
    if os.environ.get("DIE") == where and first(f"died-{where}"):
        note("deaths", where, os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)
