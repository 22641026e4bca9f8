"""Values as JSON: what goes out comes back in value and type (S8), and what cannot is refused before it is written."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import BadArgument, DefinitionError, NotEncodable, TooLarge
from perdure.model.payload import Shape

LIMIT = 1 << 20


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Named(TypedDict, total=False):
    name: str


@dataclass
class Card:
    number: str
    limit: Decimal = Decimal("1.50")


@dataclass(frozen=True)
class Cash:
    cents: int


@dataclass
class Order:
    id: UUID
    paid: Card | Cash
    notes: list[Card | Cash | None] = field(default_factory=list)


@dataclass
class Tree:
    value: int
    kids: list[Tree] = field(default_factory=list)


@attrs.define
class Box:
    width: int
    labels: set[str]


class Struct(msgspec.Struct):
    raw: bytes
    when: datetime


class Model(pydantic.BaseModel):
    size: int = pydantic.Field(alias="Size")
    model_config = pydantic.ConfigDict(populate_by_name=True)


NOW = datetime(2026, 11, 25, 12, 30, 15, 123456, tzinfo=UTC)

ROUND = [
    (Any, {"a": [1, 2.5, None, True, "ü"]}),
    (int, 2**63 - 1),
    (Any, 10**400),
    (float, 0.1),
    (str, "with \x00 and \U0001f600"),
    (bytes, bytes(range(256))),
    (datetime, NOW),
    (date, date(2026, 2, 28)),
    (time, time(1, 2, 3)),
    (timedelta, timedelta(days=2, microseconds=7)),
    (Decimal, Decimal("1234567890.123456789")),
    (UUID, UUID(int=7)),
    (Colour, Colour.BLUE),
    (Literal["a", "b"], "b"),
    (Point, Point(1, 2.5)),
    (tuple[int, str], (1, "x")),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {3, 1, 2}),
    (frozenset[str], frozenset({"b", "a"})),
    (dict[str, list[int]], {"k": [1]}),
    (dict[int, str], {1: "one"}),
    (Sequence[int], [1, 2]),
    (Named, {"name": "n"}),
    (Card, Card("4711")),
    (Card | Cash, Cash(3)),
    (Card | Cash | None, None),
    (list[Card | Cash], [Cash(1), Card("2")]),
    (dict[str, Card | Cash], {"a": Card("2")}),
    (Order, Order(UUID(int=1), Cash(5), [Card("9"), None, Cash(1)])),
    (Tree, Tree(1, [Tree(2, [Tree(3)])])),
    (Box, Box(3, {"b", "a"})),
    (Struct, Struct(b"\x00\xff", NOW)),
    (Model, Model(Size=4)),
    (Model | Card, Model(Size=4)),
    (PurePosixPath, PurePosixPath("a/b")),
    (int | str, "7"),
    (int | None, None),
    (list[int] | Card, [1]),
]


@pytest.mark.parametrize("annotation, value", ROUND, ids=[str(annotation) for annotation, _ in ROUND])
def test_a_value_comes_back_in_value_and_type(annotation: Any, value: Any) -> None:
    """Goal: a flow, a task and a caller see the decoded value, and it is the one that was given."""
    shape = Shape(annotation, "value")
    raw, seen = shape.round(value, LIMIT)
    assert seen == value
    assert type(seen) is type(value)
    assert shape.encode(seen, LIMIT) == raw


def test_sets_are_written_in_the_same_order_everywhere() -> None:
    """Goal: the hash of an argument does not depend on the hash seed of a process."""
    shape = Shape(Any, "value")
    words = [f"w{i}" for i in range(50)]
    assert shape.encode(set(words), LIMIT) == shape.encode(set(words[25:]) | set(words[:25]), LIMIT)
    assert shape.encode({"a": [{"deep", "er"}]}, LIMIT) == b'{"a":[["deep","er"]]}'


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_any_json_value_comes_back_or_is_refused(value: Any) -> None:
    """Goal: there is no third way: what is not refused is the same afterwards (F85)."""
    shape = Shape(Any, "value")
    try:
        raw, seen = shape.round(value, LIMIT)
    except NotEncodable:
        assert any("\ud800" <= char <= "\udfff" for char in repr_of(value))
        return
    assert seen == value
    assert shape.decode(raw) == value


def repr_of(value: Any) -> str:
    """All text in the value, one after another."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(repr_of(one) for pair in value.items() for one in pair)
    return "".join(map(repr_of, value)) if isinstance(value, list) else ""


@given(st.lists(st.builds(Cash, st.integers(0, 9)) | st.builds(Card, st.text("ab$", max_size=3)), max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_union_of_records_is_told_apart(value: list[Card | Cash]) -> None:
    """Goal: members of a union never change places, whatever they hold."""
    assert Shape(list[Card | Cash], "value").round(value, LIMIT)[1] == value


REFUSED = [
    ("NaN", Any, math.nan, "nan"),
    ("an infinity", Any, {"a": [math.inf]}, "$.a[0]"),
    ("a lone surrogate", Any, "\ud800", "surrogate"),
    ("a huge number", Any, 10**5000, "4,300 digits"),
    ("an open file's object", Any, object(), "object"),
    ("a coroutine function", Any, test_any_json_value_comes_back_or_is_refused, "function"),
]


@pytest.mark.parametrize("annotation, value, says", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_f85_what_cannot_be_kept_is_refused(annotation: Any, value: Any, says: str) -> None:
    """Goal: the error names the place and the reason, and the value fails its own step only."""
    with pytest.raises(
        (NotEncodable, BadArgument), match=rf"(?s)value of x.*({says.replace('$', '[$]').replace('[0]', '.0.')})"
    ):
        Shape(annotation, "value of x").round(value, LIMIT)


def test_f85_deep_nesting_is_refused_and_never_a_recursion_error() -> None:
    """Goal: 100,000 levels, and a value that holds itself, are refused as what they are."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, holds_itself()):
        with pytest.raises(NotEncodable, match="nests deeper"):
            Shape(Any, "value").encode(value, LIMIT)


def holds_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_f84_the_limit_is_exact(over: int) -> None:
    """Goal: a value of the limit passes, one byte more is refused with both sizes."""
    shape, text = Shape(str, "value"), "x" * (1_000 - 2 + over)
    if over > 0:
        with pytest.raises(TooLarge, match="1,001 bytes, more than the limit of 1,000"):
            shape.encode(text, 1_000)
    else:
        assert len(shape.encode(text, 1_000)) == 1_000 + over


@pytest.mark.parametrize(
    "value, says", [(5, "Expected `str`"), ({"number": 5}, "number"), ({}, "missing"), ([], "object")]
)
def test_a_value_of_another_type_is_refused_with_its_place(value: Any, says: str) -> None:
    """Goal: a wrong type for an argument is found where it is given."""
    annotation: Any = str if value == 5 else Card
    with pytest.raises(BadArgument, match=says):
        Shape(annotation, "parameter 'a' of task t").round(value, LIMIT)


class Opaque:
    """A class that nothing can read back."""


@pytest.mark.parametrize("annotation", [Opaque, list[Opaque], dict[str, Opaque], complex])
def test_an_annotation_that_cannot_be_read_back_is_refused_when_it_is_defined(annotation: Any) -> None:
    """Goal: the error comes at definition, not at the first resume."""
    with pytest.raises(DefinitionError, match="result of task t"):
        Shape(annotation, "result of task t")
