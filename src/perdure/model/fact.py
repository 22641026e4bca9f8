"""Facts: the only thing that is logged, one row a fact.

Every fact begins with the time of the engine's clock and the digest of all that the run had asked for
when the fact was decided (semantics S3). A fact's sequence number and chain hash stand in its row,
not in its body. Bodies are JSON arrays with the kind first, so that results can be spliced in raw.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Literal

import msgspec

from perdure.model.failure import Failure

Raw = msgspec.Raw
NULL: Final = Raw(b"null")
CHAIN_START: Final = bytes(16)


class Fact(msgspec.Struct, array_like=True, gc=False, tag_field="kind"):
    """What every fact holds.

    Units: `at` microseconds since 1970 UTC, on the engine's clock.
    Shape: `asked_n` commands were asked for so far in this generation, `asked_h` is the sum of their
           64-bit digests modulo 2**64.
    """

    at: int
    asked_n: int
    asked_h: int


class RunStarted(Fact, tag="run_started"):
    """The run exists. `seed` feeds random and uuid; `source` is the file it was started from."""

    workflow: str
    version: str
    definition: str
    input: Raw
    seed: int
    python: str
    perdure: str
    parent: str = ""
    parent_key: str = ""
    request: str = ""
    source: str = ""
    depth: int = 0
    fork_of: str = ""
    fork_at: int = 0


class RunRecovered(Fact, tag="run_recovered"):
    """A new owner loaded the run after an unclean end; `due` names the steps that may have been in an attempt."""

    epoch: int
    node: str
    due: list[str]


class IntentRecorded(Fact, tag="intent_recorded"):
    """An attempt is about to begin whose repetition would do harm, or which is suspected of killing its node."""

    key: str
    attempt: int
    epoch: int
    ask: int


class AttemptFailed(Fact, tag="attempt_failed"):
    """An attempt failed. `retry_at` is when the next one is due; None: the step has failed for good."""

    key: str
    attempt: int
    epoch: int
    asked_seq: int
    ask: int
    failure: Failure
    retry_at: int | None
    worker: str = ""
    started: int = 0
    args: Raw = NULL


class StepCompleted(Fact, tag="step_completed"):
    """A step has its result.

    `asked_seq` is the fact whose turn asked for it; `args` are kept where a compensation needs them.
    """

    key: str
    attempt: int
    epoch: int
    asked_seq: int
    ask: int
    result: Raw
    worker: str = ""
    started: int = 0
    args: Raw = NULL


class StepSkipped(Fact, tag="step_skipped"):
    """A graph's step was skipped: its condition was false, or what it needs was skipped or failed."""

    key: str
    reason: Literal["condition", "dependency", "failed"]


class StepResolved(Fact, tag="step_resolved"):
    """A person decided what became of a step that needed attention."""

    key: str
    how: Literal["result", "fail", "retry"]
    result: Raw = NULL
    failure: Failure | None = None
    by: str = ""
    request: str = ""


class SignalReceived(Fact, tag="signal_received"):
    name: str
    value: Raw
    request: str


class TimerFired(Fact, tag="timer_fired"):
    key: str
    due: int


class ChildEnded(Fact, tag="child_ended"):
    """A child run ended; `result` counts where its status is completed."""

    key: str
    child: str
    status: Literal["completed", "failed", "cancelled"]
    asked_seq: int
    ask: int
    result: Raw = NULL
    failure: Failure | None = None
    args: Raw = NULL


class PatchTaken(Fact, tag="patch_taken"):
    id: str


class CancelRequested(Fact, tag="cancel_requested"):
    reason: str
    request: str
    force: bool = False


class Owed(msgspec.Struct, array_like=True, gc=False):
    """A recorded success that must be undone if the run fails: what the compensation needs.

    `known`: there is a result.
    """

    key: str
    generation: int
    task: str
    args: Raw
    result: Raw
    known: bool = True


class RunContinued(Fact, tag="run_continued"):
    """Continue as new: replay begins here. `signals` were not yet consumed; `owed` goes over."""

    input: Raw
    generation: int
    seed: int
    signals: list[tuple[str, Raw]]
    owed: list[Owed]
    variables: Raw
    definition: str = ""
    depth: int = 0


class RunRetried(Fact, tag="run_retried"):
    """The next generation of a failed or cancelled run. A flow keeps the facts up to and with `keep` (S21)."""

    generation: int
    keep: int
    by: str
    why: str
    request: str


class RunCompleted(Fact, tag="run_completed"):
    result: Raw


class RunFailed(Fact, tag="run_failed"):
    failure: Failure


class RunCancelled(Fact, tag="run_cancelled"):
    reason: str


Cause = Literal[
    "nondeterminism",
    "outcome_unknown",
    "compensation_failed",
    "endless_turn",
    "blocked",
    "stalled",
    "refused",
    "not_recorded",
    "suspect",
    "too_long",
    "damaged",
]


class AttentionSet(Fact, tag="attention_set"):
    """The run cannot go on by itself. `cause` is the class of reason, `step` the step to blame."""

    cause: Cause
    reason: str
    step: str = ""
    definition: str = ""


class RunResumed(Fact, tag="run_resumed"):
    by: str
    why: str
    request: str = ""


AnyFact = (
    RunStarted
    | RunRecovered
    | IntentRecorded
    | AttemptFailed
    | StepCompleted
    | StepSkipped
    | StepResolved
    | SignalReceived
    | TimerFired
    | ChildEnded
    | PatchTaken
    | CancelRequested
    | RunContinued
    | RunRetried
    | RunCompleted
    | RunFailed
    | RunCancelled
    | AttentionSet
    | RunResumed
)

# Facts that a decider causes itself; they follow their cause and are compared in order on replay.
Decision = StepSkipped | PatchTaken | RunCompleted | RunFailed | RunCancelled | RunContinued
DECISIONS: Final = (StepSkipped, PatchTaken, RunCompleted, RunFailed, RunCancelled, RunContinued)
# Facts of the shell about the run; no flow code runs for them.
NOTES: Final = (RunRecovered, IntentRecorded, AttentionSet, RunResumed)
ENDS: Final = (RunCompleted, RunFailed, RunCancelled)

encode_fact = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)


def decode_fact(body: bytes) -> AnyFact:
    """Raises: msgspec.DecodeError when the body is damaged."""
    return _decoder.decode(body)


def chain(previous: bytes, body: bytes) -> bytes:
    """The hash of a fact over its predecessor's (BLAKE2b, 16 bytes; the first follows `CHAIN_START`)."""
    return blake2b(previous + body, digest_size=16).digest()


def ask_digest(kind: bytes, key: str, args: bytes) -> int:
    """The 64-bit digest of one thing asked for: its kind, key and encoded arguments."""
    return int.from_bytes(blake2b(b"%b\0%b\0%b" % (kind, key.encode(), args), digest_size=8).digest(), "little")


class Recorded(msgspec.Struct, array_like=True, gc=False):
    """A fact where it stands in its run's history: `seq` counts from 1, `hash` chains."""

    seq: int
    body: bytes
    hash: bytes
    fact: AnyFact
