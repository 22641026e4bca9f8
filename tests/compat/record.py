"""Record what this version keeps: python -m tests.compat.record; the store is committed when a version is released."""

from __future__ import annotations

import datetime as dt
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import apsw

from perdure import __version__
from perdure.testing import World

HERE = Path(__file__).parent


def programs(file: str = "tests/compat/orders.py") -> ModuleType:
    """The programs, as read from a path that is the same on every machine."""
    spec = importlib.util.spec_from_file_location("orders", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["orders"] = module
    spec.loader.exec_module(module)
    return module


def record(path: Path) -> None:
    """Runs that ended in each way, and runs that wait."""
    orders, day = programs(), dt.date(2026, 2, 28)

    def order(name: str, cents: int = 1_250) -> object:
        return orders.Order(name, cents, day)

    with World(f"sqlite:///{path}", 7, serve=list(orders.SERVED)) as world:
        for name in ("plain", "declined"):
            world.start(orders.fulfil, order(name), id=name, tags={"team": "a"}, request_id=f"start-{name}")
        for name in ("waits", "cancelled", "late"):
            world.start(orders.approve, order(name), id=name)
        world.start(orders.approve, order("open", 5_000), id="open")
        world.start(orders.figures, "2026-02-28", id="figures")
        world.advance(7_200)
        world.cancel("cancelled", "changed their mind")
        world.start(orders.count_down, 3, id="countdown")
        world.run_to_rest()
        assert world.status("waits") == "completed"
        assert world.audit_all() == []
    database = apsw.Connection(str(path))
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("VACUUM")
    database.close()
    for beside in ("lock", "mark"):
        path.with_name(f"{path.name}.{beside}").unlink(missing_ok=True)


if __name__ == "__main__":
    record(HERE / f"{__version__}.db")
