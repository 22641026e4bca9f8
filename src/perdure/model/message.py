"""Messages: what arrives from outside a run. In other processes they are written to the inbox as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.model.failure import Failure

Raw = msgspec.Raw
NULL = Raw(b"null")


class Message(msgspec.Struct, kw_only=True, gc=False, tag_field="kind", omit_defaults=True):
    """What every message holds.

    Shape: `request` is unique for what is asked: saying it twice counts once (S26).
    Units: `at` microseconds since 1970 UTC when it was acknowledged; 0: not yet.
    """

    run: str
    request: str = ""
    at: int = 0


class Start(Message, tag="start"):
    """Start a run. `drawn`: the id was drawn here, so it cannot be in use."""

    workflow: str
    version: str
    input: Raw
    input_hash: bytes
    definition: str = ""
    tags: dict[str, str] = {}
    seed: int = 0
    drawn: bool = False
    source: str = ""
    parent: str = ""
    parent_key: str = ""
    depth: int = 0


class Signal(Message, tag="signal"):
    name: str
    value: Raw


class Cancel(Message, tag="cancel"):
    reason: str = ""
    force: bool = False


class Retry(Message, tag="retry"):
    by: str = ""
    why: str = ""


class Fork(Message, tag="fork"):
    """Copy the first `upto` facts of `origin` into the new run `run`."""

    origin: str
    upto: int
    drawn: bool = False


class Resolve(Message, tag="resolve"):
    step: str
    how: Literal["result", "fail", "retry"]
    result: Raw = NULL
    by: str = ""


class ChildDone(Message, tag="child_done"):
    """A child run ended; sent to its parent in the commit that ends it."""

    key: str
    child: str
    status: Literal["completed", "failed", "cancelled"]
    result: Raw = NULL
    failure: Failure | None = None


AnyMessage = Start | Signal | Cancel | Retry | Fork | Resolve | ChildDone

encode_message = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)


def decode_message(body: bytes) -> AnyMessage:
    """Raises: msgspec.DecodeError when the body is damaged."""
    return _decoder.decode(body)
