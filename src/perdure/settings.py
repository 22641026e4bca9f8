"""Every knob: name, unit, default, bound. Each is also an environment variable `PERDURE_<NAME>` and a CLI option.

The environment is read when settings are made (`Settings.from_environment`), never at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.errors import BadCall

_BOUNDS: dict[str, tuple[float, float]] = {
    "batch_facts_max": (1, 100_000),
    "batch_bytes_max": (1 << 16, 1 << 30),
    "queue_max": (16, 10_000_000),
    "async_max": (1, 100_000),
    "threads_max": (0, 1_024),
    "processes_max": (0, 256),
    "stop_grace_s": (0, 3_600),
    "payload_max": (1_024, 1 << 30),
    "blob_min": (1_024, 1 << 30),
    "history_max": (100, 100_000_000),
    "runs_live_max": (1, 10_000_000),
    "runs_resident_max": (0, 10_000_000),
    "turn_callbacks_max": (1_000, 1_000_000_000),
    "block_max_s": (0.05, 3_600),
    "children_depth_max": (1, 1_000),
    "sweep_every_s": (0.01, 60),
    "watch_every_s": (0.001, 1),
    "lock_wait_s": (0, 600),
    "busy_wait_s": (0, 600),
    "commit_slow_s": (0, 60),
    "retention_s": (0, 1e10),
    "transaction_max_s": (0.01, 3_600),
    "transactions_max": (1, 1_000),
    "snapshot_facts": (10, 10_000_000),
}
# Settings that are one word of these.
_WORDS: dict[str, tuple[str, ...]] = {"durability": ("full", "relaxed")}


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """How an engine runs.

    Units: `*_s` seconds, `*_max` counts unless the comment says bytes.
    """

    batch_facts_max: int = 4_096  # facts in one commit; more gains nothing and delays its neighbours
    batch_bytes_max: int = 16 << 20  # bytes in one commit
    queue_max: int = 100_000  # messages waiting for the loop; then callers wait
    async_max: int = 1_000  # async attempts at once
    threads_max: int = 0  # sync attempts at once; 0: 2 x cores + 4
    processes_max: int = 0  # process attempts at once; 0: cores
    stop_grace_s: float = 10.0  # how long running attempts may go on at a stop
    payload_max: int = 64 << 20  # bytes of one encoded value
    blob_min: int = 256 << 10  # bytes above which a value goes to a blob
    history_max: int = 1_000_000  # facts of one generation
    runs_live_max: int = 100_000  # runs that are loaded and moving; further ones are queued
    runs_resident_max: int = 2_000  # waiting runs kept in memory
    turn_callbacks_max: int = 1_000_000  # callbacks in one turn of a flow
    block_max_s: float = 2.0  # how long a flow or async task may block the loop
    children_depth_max: int = 32  # runs within runs within runs
    sweep_every_s: float = 1.0  # how often the store is swept for work that no hint told of
    watch_every_s: float = 0.02  # how often a change by another process is looked for
    lock_wait_s: float = 10.0  # how long to wait for another engine to let go of the store
    busy_wait_s: float = 10.0  # how long to wait for another process's write
    commit_slow_s: float = 0.005  # a p99 of COMMIT above this moves it to a thread
    transaction_max_s: float = 5.0  # how long a step's transaction may hold the store's own file
    transactions_max: int = 10  # transactions of steps in one PostgreSQL database at once
    retention_s: float = 0.0  # ended trees of runs older than this are removed; 0: never
    snapshot_facts: int = 1_000  # facts between snapshots of a graph run, at least
    durability: str = "full"  # "full": acknowledged survives a power cut; "relaxed": only a crash of the process
    audit_open: bool = True  # audit the histories of open runs after a start, beside the work
    force_filesystem: bool = False  # accept a network file system
    accept_loss: bool = False  # start although the store holds less than was acknowledged
    gc_threshold: int = 50_000  # allocations before the collector's youngest generation runs; 0: leave Python's

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            _checked(f"setting {field.name}", field.name, field.type, getattr(self, field.name), strict=True)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **given: Any) -> Settings:
        """Settings from `PERDURE_<NAME>` variables; what is given by name wins.

        Raises: `BadCall` for a value of the wrong type or out of bounds, or an unknown name in `given`.
        """
        fields = {field.name: field.type for field in msgspec.structs.fields(cls)}
        unknown = given.keys() - fields.keys()
        if unknown:
            raise BadCall(f"unknown setting {min(unknown)!r}")
        values: dict[str, Any] = {}
        for name, kind in fields.items():
            variable = f"PERDURE_{name.upper()}"
            if given.get(name) is not None:
                values[name] = _checked(f"setting {name}", name, kind, given[name])
            elif variable in environment:
                values[name] = _checked(variable, name, kind, environment[variable])
        return cls(**values)


def _checked(said: str, name: str, kind: Any, value: Any, *, strict: bool = False) -> Any:
    """The value as what it is meant for. Raises: `BadCall` with who said it, the value, and what is allowed."""
    low, high = _BOUNDS.get(name, (0, 0))
    try:
        made = msgspec.convert(value, kind, strict=strict)
        if (name not in _BOUNDS or low <= made <= high) and (kind is not str or made in _WORDS[name]):
            return made
    except msgspec.ValidationError:
        pass
    if kind is str:
        allowed = " or ".join(f'"{word}"' for word in _WORDS[name])
    elif kind is bool:
        allowed = "true or false"
    else:
        allowed = f"a {'whole ' * (kind is int)}number from {_plain(low)} to {_plain(high)}"
    raise BadCall(f"{said}={value!r} is not allowed: it takes {allowed}")


def _plain(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:g}"
