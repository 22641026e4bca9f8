"""Declared exceptions as data: rebuilt from their constructor's arguments, never unpickled (S8)."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.model.payload import exception_data, rebuild_exception


class Declined(Exception):
    def __init__(self, code: int, reason: str = "none given") -> None:
        super().__init__(f"declined: {reason} ({code})")
        self.code, self.reason = code, reason


class KeywordOnly(Exception):
    def __init__(self, *, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit


class Forgetful(Exception):
    """Keeps nothing of what it was made from, and says something else each time."""

    made = 0

    def __init__(self, secret: object) -> None:
        Forgetful.made += 1
        super().__init__(f"number {Forgetful.made}")


class Explosive(Exception):
    @property
    def code(self) -> int:
        raise RuntimeError("do not touch")

    def __init__(self, code: int) -> None:
        super().__init__("boom")


@pytest.mark.parametrize(
    "error",
    [
        Declined(7, "stolen"),
        Declined(7),
        KeywordOnly(limit=2.5),
        ValueError("plain", 3),
        KeyError("k"),
        FileNotFoundError(2, "no", "f"),
    ],
    ids=repr,
)
def test_a_declared_exception_comes_back_as_itself(error: Exception) -> None:
    """Goal: `except Declined` works live and on replay, with the same fields and the same text."""
    raw = exception_data(error, 10_000)
    assert raw is not None
    made = rebuild_exception(type(error), raw)
    assert type(made) is type(error)
    assert str(made) == str(error)
    assert vars(made) == vars(error)


@pytest.mark.parametrize(
    "error", [Forgetful(object()), Explosive(3), Declined(object())], ids=["forgetful", "explosive", "unkeepable"]
)  # type: ignore[arg-type]
def test_one_that_cannot_be_rebuilt_is_no_data(error: Exception) -> None:
    """Goal: it is tried when it is raised, so that live and replay both see `StepFailed`."""
    assert exception_data(error, 10_000) is None


@pytest.mark.parametrize("raw", [b"{}", b'{"args":[1,2,3]}', b'{"code":"x"}', b"[]", b"not json"])
def test_damaged_data_is_no_exception(raw: bytes) -> None:
    """Goal: what was recorded by other code never breaks a load."""
    made: Any = rebuild_exception(Declined, raw)
    assert made is None or isinstance(made, Declined)


def test_f84_large_arguments_are_left_out() -> None:
    """Goal: an exception with a huge argument is still a failure to record, without its data."""
    assert exception_data(Declined(1, "x" * 2_000), 1_000) is None
