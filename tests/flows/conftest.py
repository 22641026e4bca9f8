"""What each test of flows begins with."""

from __future__ import annotations

import pytest

from tests.flows import noted


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    noted.forget()
