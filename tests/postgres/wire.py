"""PostgreSQL's messages, cut out of a stream of bytes: only what a proxy must know of them.

Source: PostgreSQL's manual, "Frontend/Backend Protocol", "Message Formats".
"""

from __future__ import annotations

from dataclasses import dataclass, field

ENCRYPTION = (80877103, 80877104)  # SSLRequest and GSSENCRequest: both may be answered with the byte N


@dataclass(frozen=True)
class Message:
    """One message: its kind (a letter, or "" for one of the first, which have none) and all of its bytes."""

    kind: str
    raw: bytes

    @property
    def asks_encryption(self) -> bool:
        return not self.kind and int.from_bytes(self.raw[4:8], "big") in ENCRYPTION

    def words(self, count: int) -> list[str]:
        """The first texts of the body, which end with a zero byte each."""
        return [word.decode(errors="replace") for word in self.raw[5:].split(b"\0", count)[:count]]


@dataclass
class Framing:
    """The bytes of one way that are no whole message yet. A client's first message has no kind."""

    first: bool
    rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Message]:
        self.rest += data
        messages: list[Message] = []
        at = 0
        while (size := self._size(at)) is not None and at + size <= len(self.rest):
            raw = bytes(self.rest[at : at + size])
            message = Message("" if self.first else chr(raw[0]), raw)
            self.first = message.asks_encryption
            messages.append(message)
            at += size
        del self.rest[:at]
        return messages

    def _size(self, at: int) -> int | None:
        """How long the message is that begins here; None while that cannot be read."""
        head = at if self.first else at + 1
        if len(self.rest) < head + 4:
            return None
        return head - at + int.from_bytes(self.rest[head : head + 4], "big")


@dataclass
class Statements:
    """Which text each message of a client executes: by its own, or by the statement and portal that it names."""

    texts: dict[str, str] = field(default_factory=dict)
    portals: dict[str, str] = field(default_factory=dict)

    def executes(self, message: Message) -> str | None:
        """The SQL that the server runs on this message; None when it runs none."""
        match message.kind:
            case "Q":
                return message.words(1)[0]
            case "P":
                name, text = message.words(2)
                self.texts[name] = text
            case "B":
                portal, name = message.words(2)
                self.portals[portal] = self.texts.get(name, "")
            case "E":
                return self.portals.get(message.words(1)[0])
        return None
