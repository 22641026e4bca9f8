"""How long the history of one generation may become: a warning first, then the run needs attention (F83)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from perdure.model.run import Life

if TYPE_CHECKING:
    from perdure.runtime.advance import Advance
    from perdure.runtime.live import LiveRun

log = logging.getLogger("perdure.length")
# The part of the limit at which is warned, in hundredths.
WARN_AT: Final = 80


def look(advance: Advance, run: LiveRun) -> None:
    """Warn once a generation; at the limit the run goes to attention, unless it is on its way to its end."""
    decider, most = run.decider, advance.settings.history_max
    full = decider.first - 1 + most
    warn = full - most + most * WARN_AT // 100
    if not run.look_at:
        run.look_at = warn if run.seq <= warn else full  # beyond it, it was warned before the run left memory
    if run.seq < run.look_at or run.life is not Life.LIVE:
        return
    count = run.seq - decider.first + 1
    if run.seq < full:
        run.look_at = full
        log.warning("run %s has %d facts of at most %d (history_max): %s", run.id, count, most, remedy(run.spec.kind))
    elif decider.intent is None and decider.cancelled is None:
        reason = f"its history has {count:,} facts, the limit of a generation (setting history_max): "
        advance.attention(run, "too_long", f"{reason}raise the limit and retry it; {remedy(run.spec.kind)}")


def remedy(kind: str) -> str:
    """What makes histories shorter."""
    return "divide it into nested graphs" if kind == "graph" else "let its code call continue_as_new now and then"
