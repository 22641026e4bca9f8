"""Text for people: what others gave does no harm to a terminal (F103), and tells no secret (F97)."""

from __future__ import annotations

import re
from typing import Final

from perdure.errors import BadCall

# C0 and C1 controls, DEL, line separators, direction marks and overrides, zero-width characters, surrogates.
_HARMFUL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\x1b"}


# What stands before the last @ of an address is a name and its password; parameters of these names hold secrets.
_PASSWORD: Final = re.compile(r"""([a-z][a-z0-9+.-]*://[^\s:/@'"]*):[^\s'"]*@""", re.IGNORECASE)
_SECRET: Final = re.compile(r"""([?&;](?:\w*(?:pass|pwd|secret|token|key)\w*)=)[^\s&;'"]+""", re.IGNORECASE)


def redact(text: str) -> str:
    """The text without the passwords of the addresses in it (F97)."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def check_text(value: object, what: str, limit: int = 1_000) -> str:
    """Raises: `BadCall` for what is no text, is too long, or holds half a character."""
    if not isinstance(value, str) or len(value) > limit or not _whole(value):
        raise BadCall(f"{what} {str(value)[:60]!r}: a text of at most {limit:,} whole characters")
    return value


def check_signal_name(name: object) -> str:
    """Raises: `BadCall` when the name is not 1 to 200 whole characters."""
    if not check_text(name, "signal name", 200):
        raise BadCall("signal name '': 1 to 200 characters")
    return str(name)


def _whole(value: str) -> bool:
    """Whether the text can be kept: no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape(text: str, limit: int | None = None) -> str:
    """The text on one line, with what a terminal would act upon spelled out; cut to `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return _HARMFUL.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
