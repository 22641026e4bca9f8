"""The public names are a promise: adding or removing one is done on purpose, in public_names.txt."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

PINNED = (Path(__file__).parent / "public_names.txt").read_text(encoding="utf-8").split()


@pytest.fixture
def package() -> ModuleType:
    return importlib.import_module("perdure")


def test_the_public_names_are_the_pinned_ones(package: ModuleType) -> None:
    """Goal: nothing joins or leaves the interface by accident."""
    assert sorted(package.__all__) == PINNED


def test_every_public_name_is_there(package: ModuleType) -> None:
    """Goal: `from perdure import *` works, also where names are made lazily."""
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing


def test_the_pinned_names_are_sorted_and_said_once() -> None:
    """Goal: a change of the list reads as one line."""
    assert sorted(set(PINNED)) == PINNED
