"""What users test with: a simulated clock and world, crash points, the store conformance suite, strategies, a plugin.

Owns virtual time, simulated faults and dead engines. Promises that a world runs the real engine, that waiting takes
no time, and that one seed gives one run. `strategies` (hypothesis) and `conformance` (pytest) are imported by name.
May import: everything.
"""

from perdure.testing.clock import SimulatedClock
from perdure.testing.crashes import CrashDifference, Ended, Exploration, run_with_crashes
from perdure.testing.faults import FaultKind, FaultyStore, Fired, SimulatedCrash
from perdure.testing.loop import NothingMoves, VirtualLoop
from perdure.testing.machine import AtRest
from perdure.testing.world import World

__all__ = [
    "AtRest", "CrashDifference", "Ended", "Exploration", "FaultKind", "FaultyStore", "Fired", "NothingMoves",
    "SimulatedClock", "SimulatedCrash", "VirtualLoop", "World", "run_with_crashes",
]  # fmt: skip
