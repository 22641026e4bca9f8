"""What every test may use. The fixtures that users get too live in `perdure.testing.plugin`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.postgres.fixtures"]

ROOT = Path(__file__).resolve().parent.parent

# One profile for all: found examples are printed with their seed, and a slow machine is no failure.
settings.register_profile("perdure", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perdure")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the torture tests to `make torture`: they run only when they are asked for by mark or by file."""
    if "torture" in config.option.markexpr or any("torture" in arg for arg in config.args):
        return
    torture = [item for item in items if item.get_closest_marker("torture")]
    if torture:
        config.hook.pytest_deselected(items=torture)
        items[:] = [item for item in items if not item.get_closest_marker("torture")]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own, so that no `perdure.db` is shared or left behind."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PERDURE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT
