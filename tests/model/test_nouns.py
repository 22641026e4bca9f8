"""Durations, ids, retry policies, strict JSON and text for people."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import BadArgument, BadCall, BadDuration, BadId, DefinitionError, TooLarge
from perdure.model.duration import duration_us, say_us
from perdure.model.fact import CHAIN_START, chain
from perdure.model.ids import check_id, child_id, drawn_id, idempotency_key
from perdure.model.payload import canonical, input_hash, strict_json
from perdure.model.policy import Retry
from perdure.model.text import escape, redact
from perdure.settings import Settings


@pytest.mark.parametrize(
    "given, micros",
    [
        ("30s", 30_000_000), ("5m", 300_000_000), ("1h30m", 5_400_000_000), ("3d", 259_200_000_000), ("250ms", 250_000),
        ("PT5M", 300_000_000), ("P1DT2H", 93_600_000_000), ("P2W", 1_209_600_000_000), ("1.5s", 1_500_000),
        (timedelta(days=3), 259_200_000_000), (2, 2_000_000), (0.5, 500_000), (0, 0),
    ],
)  # fmt: skip
def test_a_duration_is_read(given: Any, micros: int) -> None:
    """Goal: timedelta, text, ISO 8601 and seconds say the same."""
    assert duration_us(given) == micros


@pytest.mark.parametrize(
    "bad", ["", "5", "5 parsecs", "-1s", "P", "PT", "1h junk", -1, True, None, [], float("nan"), 1e30, "200y"]
)
def test_a_bad_duration_is_refused_by_name(bad: Any) -> None:
    """Goal: the error names the argument and shows the forms that there are."""
    with pytest.raises(BadDuration, match=r"timeout=.*30s"):
        duration_us(bad, "timeout=")


@given(st.integers(0, 10**15))
def test_durations_for_people_are_never_empty(micros: int) -> None:
    """Goal: whatever the length, something can be read."""
    assert say_us(micros)


@pytest.mark.parametrize("bad", ["", "a" * 129, "../x", "a/b", ".", "..", "a b", "ü", "a\n", "a\x00", 5, None])
def test_f99_an_id_outside_the_grammar_is_refused(bad: Any) -> None:
    """Goal: no id is ever a path, a pattern or a control sequence."""
    with pytest.raises(BadId, match="1 to 128 letters"):
        check_id(bad)


@given(st.text(max_size=200), st.integers(0, 2**128 - 1))
def test_drawn_ids_fit_the_grammar_whatever_the_workflow_is_called(name: str, chance: int) -> None:
    """Goal: what is drawn can always be given back."""
    assert check_id(drawn_id(name, chance))
    assert check_id(child_id("parent", 1, "key#1", name))


def test_derived_ids_hold_the_generation() -> None:
    """Goal: asking twice is asking once, and a later generation asks anew (S20, S21)."""
    assert child_id("p", 1, "k#1", "w") == child_id("p", 1, "k#1", "w")
    assert child_id("p", 1, "k#1", "w") != child_id("p", 2, "k#1", "w")
    assert idempotency_key("r", 1, "k#1") != idempotency_key("r", 2, "k#1")


@given(st.integers(1, 40), st.binary(max_size=8))
def test_the_delay_is_within_its_bounds(failures: int, chance: bytes) -> None:
    """Goal: full jitter lies between nothing and min(max, first * factor**(n-1)); the same chance draws the same."""
    retry = Retry(attempts=100, first="1s", factor=2, max="1m")
    bound = min(60_000_000, 1_000_000 * 2 ** (failures - 1))
    delay = retry.delay_us(failures, chance)
    assert delay is not None
    assert 0 <= delay <= bound
    assert retry.delay_us(failures, chance) == delay
    assert Retry(attempts=100, jitter=False).delay_us(failures, chance) == bound


def test_the_last_attempt_is_the_last() -> None:
    """Goal: `attempts` counts the first one too."""
    assert Retry(attempts=3).delay_us(2, b"") is not None
    assert Retry(attempts=3).delay_us(3, b"") is None


@pytest.mark.parametrize("bad", [{"attempts": 0}, {"factor": 0.5}, {"attempts": "3"}, {"first": "soon"}, {"max": -1}])
def test_a_bad_policy_is_refused(bad: dict[str, Any]) -> None:
    """Goal: a policy that cannot be followed is found when it is written."""
    with pytest.raises((DefinitionError, BadDuration), match="Retry"):
        Retry(**bad)


@pytest.mark.parametrize(
    "text, says",
    [
        ('{"a":1,"a":2}', "twice"), ("[NaN]", "NaN"), ("[Infinity]", "Infinity"), ("[1e999]", "too large"),
        (f"[{10**30}]", "64 bits"),
        ('["\\ud800"]', "surrogate"), ("[" * 100 + "]" * 100, "64 levels"), ("{", "not JSON"), (b"\xff", "UTF-8"),
    ],
)  # fmt: skip
def test_f85_json_from_outside_is_read_strictly(text: str | bytes, says: str) -> None:
    """Goal: poison is named and refused before anything is written."""
    with pytest.raises(BadArgument, match=f"--input.*{says}"):
        strict_json(text, "--input", 10_000)


def test_f84_json_over_its_limit_is_not_even_read() -> None:
    """Goal: a large text costs nothing."""
    with pytest.raises(TooLarge, match="--input takes 10,002 bytes"):
        strict_json("[" + " " * 10_000 + "]", "--input", 10_000)


@given(st.dictionaries(st.text("abc", max_size=3), st.integers(-5, 5), max_size=5))
@settings(max_examples=50)
def test_the_same_input_has_one_hash_however_it_is_spelled(value: dict[str, int]) -> None:
    """Goal: key order, spaces and 1.0 for 1 make no other input (S23)."""
    plain = json.dumps(value).encode()
    other = json.dumps({key: float(value[key]) for key in reversed(value)}, indent=2).encode()
    assert canonical(plain) == canonical(other)
    assert input_hash(plain) == input_hash(other)


def test_the_chain_depends_on_all_before() -> None:
    """Goal: a fact changed anywhere changes every hash behind it (K4)."""
    one = chain(chain(CHAIN_START, b"a"), b"b")
    assert one != chain(chain(CHAIN_START, b"A"), b"b")
    assert len(one) == 16


@pytest.mark.parametrize("char", ["\x1b", "\x00", "\n", "\x9b", "\u202e", "\u200b", "\ud800"])
def test_f103_nothing_that_a_terminal_acts_upon_is_printed(char: str) -> None:
    """Goal: names and messages reach a terminal as text only."""
    assert char not in escape(f"a{char}b")
    assert escape("plain ü 漢") == "plain ü 漢"


def test_f97_passwords_in_addresses_are_hidden() -> None:
    """Goal: an address may be shown; its secret never is."""
    shown = redact("postgresql://ann:s3cret@db/x?sslpassword=hush&a=1")
    assert "s3cret" not in shown
    assert "hush" not in shown
    assert "ann" in shown


def test_settings_come_from_the_environment_and_are_bounded() -> None:
    """Goal: each knob has a name, a type and a bound, and a wrong one is named."""
    assert Settings.from_environment({"PERDURE_ASYNC_MAX": "7"}).async_max == 7
    assert Settings.from_environment({"PERDURE_ASYNC_MAX": "7"}, async_max=9).async_max == 9
    for environment, named, says in (
        ({"PERDURE_ASYNC_MAX": "many"}, {}, "PERDURE_ASYNC_MAX"),
        ({"PERDURE_ASYNC_MAX": "0"}, {}, "PERDURE_ASYNC_MAX"),
        ({}, {"asink_max": 1}, "asink_max"),
        ({"PERDURE_DURABILITY": "maybe"}, {}, "PERDURE_DURABILITY"),
    ):
        with pytest.raises(BadCall, match=says):
            Settings.from_environment(environment, **named)
