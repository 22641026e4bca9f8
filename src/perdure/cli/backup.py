"""`perdure backup`: a consistent copy of a store, while it is in use."""

from __future__ import annotations

from pathlib import Path

import click

from perdure.cli.options import Session, awaited, command
from perdure.cli.output import say
from perdure.errors import BadCall


@command("backup", "Copy the store while it is in use.", examples="perdure backup /backups/orders-monday.db")
@click.argument("destination", metavar="DEST")
def backup(session: Session, destination: str) -> None:
    """Copy the store to a new file, as it is at one moment; engines and clients go on meanwhile."""
    target = Path(destination).expanduser()
    if target.exists():
        raise BadCall(f"{target} exists: a backup goes to a new file")
    if not target.parent.is_dir():
        raise BadCall(f"folder {target.parent} does not exist")

    async def copy() -> dict[str, int]:
        async with session.client() as client:
            await client.store.backup(str(target))
        return {"bytes": target.stat().st_size}

    done = awaited(copy())
    say(f"{target} is written ({done['bytes']:,} bytes); check it with `perdure verify --store sqlite:///{target}`")
