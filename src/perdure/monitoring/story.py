"""A run's story: its history in plain sentences that a person can follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from perdure.kernel.fold import UNDO
from perdure.model.duration import say_us
from perdure.model.failure import Failure
from perdure.model.run import HistoryEntry, micros
from perdure.model.text import escape

VALUE_MAX: Final = 100
MESSAGE_MAX: Final = 300
NAMES_MAX: Final = 5
# A timer that fires later than this after it was due says so.
LATE_US: Final = 2_000_000


class Sentence(msgspec.Struct, frozen=True):
    """What one fact tells. Shape: `mark` is what it means for the run; `text` is one line, safe for a terminal."""

    seq: int
    at: datetime
    kind: str
    mark: str
    text: str


def tell(history: Sequence[HistoryEntry]) -> list[Sentence]:
    """One sentence for each fact, in order."""
    return [_sentence(entry) for entry in history]


def _sentence(entry: HistoryEntry) -> Sentence:
    told = _TELLERS.get(entry.kind)
    text, mark = told(entry, entry.detail) if told is not None else (entry.kind.replace("_", " "), "")
    return Sentence(entry.seq, entry.at, entry.kind, mark, text)


Told = tuple[str, str]
Detail = Mapping[str, Any]


# --- the run ---------------------------------------------------------------------------------------


def _started(_: HistoryEntry, detail: Detail) -> Told:
    text = f"{escape(detail['workflow'])} (version {escape(detail['version'])}) was started"
    if detail["fork_of"]:
        text = f"forked from run {detail['fork_of']} with its first {_count(detail['fork_at'], 'fact')}"
    elif detail["parent"]:
        text += f" by run {detail['parent']}, as {escape(detail['parent_key'])},"
    return f"{text} with {_values(detail['input'])}", "begin"


def _recovered(_: HistoryEntry, detail: Detail) -> Told:
    due = detail["due"]
    text = f"the engine before had died: {escape(detail['node'])} took the run over (epoch {detail['epoch']})"
    return text + (f"; begun or due were {_names(due)}" if due else ""), "crash"


def _continued(_: HistoryEntry, detail: Detail) -> Told:
    return f"continued as new: generation {detail['generation']} begins with {_values(detail['input'])}", "begin"


def _retried(_: HistoryEntry, detail: Detail) -> Told:
    return f"retried{_by(detail)}: generation {detail['generation']} begins", "begin"


def _completed(_: HistoryEntry, detail: Detail) -> Told:
    return f"the run completed: {_value(detail['result'])}", "good"


def _failed(_: HistoryEntry, detail: Detail) -> Told:
    return f"the run failed: {_failure(detail['failure'])}", "bad"


def _cancelled(_: HistoryEntry, detail: Detail) -> Told:
    reason = detail["reason"]
    return "the run was cancelled" + (f": {escape(reason, MESSAGE_MAX)}" if reason else ""), "bad"


def _cancel_asked(_: HistoryEntry, detail: Detail) -> Told:
    forced = ", by force" if detail["force"] else ""
    reason = f": {escape(detail['reason'], MESSAGE_MAX)}" if detail["reason"] else ""
    return f"cancelling was asked for{forced}{reason}", "bad"


def _attention(_: HistoryEntry, detail: Detail) -> Told:
    where = f" ({escape(detail['step'])})" if detail["step"] else ""
    return f"the run needs attention{where}: {escape(detail['reason'], MESSAGE_MAX)}", "bad"


def _resumed(_: HistoryEntry, detail: Detail) -> Told:
    return f"the run was resumed{_by(detail)}", "begin"


# --- its steps -------------------------------------------------------------------------------------


def _intent(_: HistoryEntry, detail: Detail) -> Told:
    return f"{_step(detail)} is about to be tried, attempt {detail['attempt']}", ""


def _attempt_failed(entry: HistoryEntry, detail: Detail) -> Told:
    failure = {**detail["failure"], "attempts": 1, "step": ""}
    text = f"{_step(detail)} failed{_attempt(detail)}{_took(entry, detail)}: {_failure(failure)}"
    if detail["retry_at"] is None:
        return f"{text}; it is not tried again", "bad"
    return f"{text}; tried again in {say_us(max(0, detail['retry_at'] - micros(entry.at)))}", "retry"


def _step_completed(entry: HistoryEntry, detail: Detail) -> Told:
    key = detail["key"]
    if key.startswith(UNDO):
        return f"{escape(key.removeprefix(UNDO))} was undone{_attempt(detail)}{_took(entry, detail)}", "undo"
    result = "" if detail["result"] is None else f": {_value(detail['result'])}"
    return f"{escape(key)} succeeded{_attempt(detail)}{_took(entry, detail)}{result}", "good"


def _skipped(_: HistoryEntry, detail: Detail) -> Told:
    why = {
        "condition": "its condition is false",
        "dependency": "what it needs was skipped",
        "failed": "what it needs failed",
    }
    return f"{_step(detail)} was skipped: {why.get(detail['reason'], detail['reason'])}", "skip"


def _resolved(_: HistoryEntry, detail: Detail) -> Told:
    who = escape(detail["by"]) or "a person"
    if detail["how"] == "result":
        return f"{who} resolved {_step(detail)} with the result {_value(detail['result'])}", "good"
    how = "as failed" if detail["how"] == "fail" else "to be tried again"
    return f"{who} resolved {_step(detail)} {how}", "retry"


def _signal(_: HistoryEntry, detail: Detail) -> Told:
    value = "" if detail["value"] is None else f": {_value(detail['value'])}"
    return f"signal {escape(detail['name'])} came{value}", "signal"


def _timer(entry: HistoryEntry, detail: Detail) -> Told:
    late = micros(entry.at) - detail["due"]
    return f"{_step(detail)} was due" + (f", {say_us(late)} ago" if late > LATE_US else ""), "timer"


def _child(_: HistoryEntry, detail: Detail) -> Told:
    text = f"child run {detail['child']} ({_step(detail)}) {detail['status']}"
    if detail["status"] == "completed":
        return f"{text}: {_value(detail['result'])}", "good"
    return text + (f": {_failure(detail['failure'])}" if detail["failure"] else ""), "bad"


def _patch(_: HistoryEntry, detail: Detail) -> Told:
    return f"the code of patch {escape(detail['id'])} is taken from here on", ""


_TELLERS: Final[Mapping[str, Callable[[HistoryEntry, Detail], Told]]] = {
    "run_started": _started,
    "run_recovered": _recovered,
    "run_continued": _continued,
    "run_retried": _retried,
    "run_completed": _completed,
    "run_failed": _failed,
    "run_cancelled": _cancelled,
    "run_resumed": _resumed,
    "cancel_requested": _cancel_asked,
    "attention_set": _attention,
    "intent_recorded": _intent,
    "attempt_failed": _attempt_failed,
    "step_completed": _step_completed,
    "step_skipped": _skipped,
    "step_resolved": _resolved,
    "signal_received": _signal,
    "timer_fired": _timer,
    "child_ended": _child,
    "patch_taken": _patch,
}


# --- pieces ----------------------------------------------------------------------------------------


def _step(detail: Detail) -> str:
    key = str(detail["key"])
    return f"undoing {escape(key.removeprefix(UNDO))}" if key.startswith(UNDO) else escape(key)


def _attempt(detail: Detail) -> str:
    number = detail["attempt"]
    return f" at attempt {number}" if number > 1 else ""


def _took(entry: HistoryEntry, detail: Detail) -> str:
    started = detail["started"]
    return f" after {say_us(max(0, micros(entry.at) - started))}" if started else ""


def _failure(found: Any) -> str:
    failure = msgspec.json.decode(msgspec.json.encode(found), type=Failure)
    return escape(failure.summary(), MESSAGE_MAX)


def _by(detail: Detail) -> str:
    who = f" by {escape(detail['by'])}" if detail["by"] else ""
    return who + (f" ({escape(detail['why'], MESSAGE_MAX)})" if detail["why"] else "")


def _value(value: Any) -> str:
    """A JSON value, short."""
    return escape(msgspec.json.encode(value).decode("utf-8", "replace"), VALUE_MAX)


def _values(given: Any) -> str:
    """The input of a run: all parameters in order."""
    if not isinstance(given, list):
        return _value(given)
    return ", ".join(_value(value) for value in given[:NAMES_MAX]) if given else "no input"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(escape(name) for name in names[:NAMES_MAX])
    return shown + (f" and {len(names) - NAMES_MAX:,} more" if len(names) > NAMES_MAX else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
