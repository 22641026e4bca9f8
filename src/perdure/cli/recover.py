"""`perdure recover`: look at all of a store, and open it again where something was lost."""

from __future__ import annotations

from typing import Any

import click

from perdure.app import Stopper, open_engine
from perdure.authoring.registry import Registry
from perdure.cli.options import Session, command
from perdure.cli.output import put, put_json, say
from perdure.cli.run import settings_of
from perdure.cli.verify import Findings, audit_all
from perdure.errors import StoreDamaged


@command(
    "recover",
    "Check everything after a loss, and open the store again.",
    as_json=True,
    examples="perdure recover\nperdure recover --accept-loss --store sqlite:////srv/orders.db",
)
@click.option("--accept-loss", is_flag=True, help="Go on although the store holds less than was acknowledged.")
def recover(session: Session, accept_loss: bool) -> int:
    """Check the structure and every history of a store, and begin a new epoch on it.

    A store that holds less than was acknowledged (a lost write-ahead log, an old copy) is refused by every engine;
    put the right files back if they exist, else --accept-loss goes on with what there is. No run is moved.
    """
    settings = settings_of((), accept_loss=accept_loss or None)
    notices: list[str] = []

    def notice(text: str) -> None:
        notices.append(text)
        say(text)

    async def whole() -> tuple[int, Findings]:
        session.must_exist()
        engine = await open_engine(session.store, Registry(), settings, notice)
        try:
            store: Any = engine.store
            wrong = await store.check()
            if wrong:
                raise StoreDamaged(f"{wrong[0]} (and {len(wrong) - 1} more): restore a backup")
            return engine.epoch, await audit_all(engine.store, settings, replay=False)
        finally:
            await engine.stop()

    epoch, findings = Stopper(lambda: "stopped").run(whole())
    if session.json:
        put_json({"ok": findings.ok, "epoch": epoch, "notices": notices, **findings.data()})
    else:
        put("structure: sound")
        for line in findings.lines():
            put(line)
        put(f"epoch {epoch} has begun: engines may start")
    return 0 if findings.ok else 3
