"""What a person can do about a run that cannot go on by itself, and what it is refused with when that was something else."""

from __future__ import annotations

from perdure.errors import WrongState
from perdure.model.run import Outcome
from perdure.runtime.replay import TAKEN_BACK

# Reasons that trying again may do away with; the others, a person alone (S19).
MENDED_BY_CODE = TAKEN_BACK | {"nondeterminism", "not_recorded"}


def ways_out(run_id: str, outcome: Outcome) -> str:
    """What a person can do about a run that needs attention."""
    ways = [f"`perdure cancel {run_id} --force`"]
    if outcome.step and outcome.cause not in MENDED_BY_CODE:
        ways.insert(0, f"`perdure resolve {run_id} {outcome.step} --result JSON|--fail|--retry`")
    if outcome.cause != "outcome_unknown":
        ways.insert(0, f"mend what is wrong and start again, or `perdure retry {run_id}`")
    return f"ways out: {', or '.join(ways)}"


def ends_already(run_id: str, outcome: Outcome) -> WrongState:
    """A plain cancel of a run that was failing or cancelling when it came to need attention changes nothing (S19)."""
    return WrongState(
        f"run {run_id} was ending already when it came to need attention ({outcome.reason or outcome.cause}): "
        f"a cancel changes nothing; {ways_out(run_id, outcome)}"
    )


def unknown_step(run_id: str, step: str) -> WrongState:
    """Trying a run again would repeat a step that may be made at most once, and may have taken place (S16)."""
    return WrongState(
        f"nobody knows whether step {step} of run {run_id} took place: say it with "
        f"`perdure resolve {run_id} {step} --result JSON`, `--fail`, or `--retry` to make it again"
    )
