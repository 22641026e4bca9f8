"""YAML text to plain data and back, within limits: no tags, few aliases, bounded size, depth and expansion (F91).

The parser's events are read one by one and the data is built here, so that nothing is expanded before it is counted.
Plain scalars mean what PyYAML's safe loader makes of them, but dates, and words like `on` as
keys, stay text.
"""

from __future__ import annotations

import math
from typing import Any, Final

import yaml
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from perdure.errors import DefinitionError

BYTES_MAX: Final = 1 << 20
ALIASES_MAX: Final = 50
NODES_MAX: Final = 50_000
DEPTH_MAX: Final = 48
_DIGITS_MAX: Final = 400

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NULL, _BOOL, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "merge"))


class Located:
    """Where data stands in its text. Shape: `lines` by the identity of a mapping or list, counted from 1."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.lines: dict[int, int] = {}

    def at(self, container: Any) -> str:
        line = self.lines.get(id(container))
        return self.what if line is None else f"{self.what}, line {line}"


def write_yaml(data: Any) -> str:
    """Plain data as YAML; nothing is written as an alias. Raises: `DefinitionError` for more than can be read again."""
    count = _values(data)
    if count > NODES_MAX:
        raise DefinitionError(f"{count:,} values, and YAML holds {NODES_MAX:,}: write large graphs as JSON")
    text: str = yaml.dump(
        data, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None, indent=2
    )
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > BYTES_MAX:
        raise DefinitionError(f"{size:,} bytes of YAML, more than {BYTES_MAX:,}: write large graphs as JSON")
    return text


def _values(data: Any) -> int:
    """How many there are, as they are counted when they are read: keys, values, lists and mappings."""
    count, left = 0, [data]
    while left:
        one = left.pop()
        count += 1
        if isinstance(one, dict):
            count += len(one)
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
    return count


class _Plain(_Dumper):  # type: ignore[misc, valid-type]
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def read_yaml(text: str | bytes, what: str) -> tuple[Any, Located]:
    """The data of the only document in the text, and where its parts stand.

    Raises: `DefinitionError` with the line, for what is no YAML or goes beyond a limit.
    """
    body = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(body) > BYTES_MAX:
        raise DefinitionError(
            f"{what}: {len(body):,} bytes of YAML, more than {BYTES_MAX:,}: write large graphs as JSON"
        )
    builder = _Builder(what)
    try:
        for event in yaml.parse(body, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise DefinitionError(f"{what}{line}: no YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{what}: no YAML: {' '.join(str(error).split())}") from None
    if builder.documents != 1:
        raise DefinitionError(f"{what}: it holds {builder.documents} documents instead of one")
    return builder.root, builder.located


class _Frame:
    """A list or mapping that is being read. Shape: `size` counts the nodes inside, aliases expanded."""

    __slots__ = ("anchor", "data", "key", "merged", "size")

    def __init__(self, data: Any, anchor: str | None) -> None:
        self.data, self.anchor = data, anchor
        self.key: Any = _NO_KEY
        self.merged: list[dict[Any, Any]] = []
        self.size = 1


_NO_KEY: Final = object()
_MERGE_KEY: Final = object()


class _Builder:
    """Builds plain data from events, and counts."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.located = Located(what)
        self.root: Any = None
        self.documents = self.aliases = self.nodes = 0
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.scalars = _Scalars()

    def take(self, event: Event) -> None:
        if isinstance(event, NodeEvent):
            self._node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self.stack.pop()
            if frame.anchor is not None:
                self.anchors[frame.anchor] = (frame.data, frame.size)
            if isinstance(frame.data, dict):
                self._merge(frame)
            self._add(frame.data, frame.size, event)
        elif isinstance(event, DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise self._error(event, "a second document begins")

    def _node(self, event: NodeEvent) -> None:
        if isinstance(event, AliasEvent):
            self._alias(event)
            return
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise self._error(event, f"more than {NODES_MAX:,} values: write large graphs as JSON")
        if isinstance(event, CollectionStartEvent):
            self._open(event)
        elif isinstance(event, ScalarEvent):
            value = self._scalar(event)
            if event.anchor is not None:
                self.anchors[event.anchor] = (value, 1)
            self._add(value, 1, event)

    def _open(self, event: CollectionStartEvent) -> None:
        if event.tag is not None:
            raise self._error(event, f"tags such as {event.tag!r} are not read")
        if len(self.stack) >= DEPTH_MAX:
            raise self._error(event, f"nested more than {DEPTH_MAX} deep")
        data: Any = {} if isinstance(event, MappingStartEvent) else []
        assert isinstance(event, MappingStartEvent | SequenceStartEvent)
        self.located.lines[id(data)] = _line(event)
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Frame(data, event.anchor))

    def _alias(self, event: AliasEvent) -> None:
        self.aliases += 1
        if self.aliases > ALIASES_MAX:
            raise self._error(event, f"more than {ALIASES_MAX} aliases")
        found = self.anchors.get(event.anchor or "")
        if found is None:
            raise self._error(event, f"*{event.anchor} is not defined before it, or holds itself")
        self._add(*found, event)

    def _add(self, value: Any, size: int, event: Event) -> None:
        """Put a finished value into what holds it."""
        if not self.stack:
            self.root = value
            return
        frame = self.stack[-1]
        frame.size += size
        if frame.size > NODES_MAX:
            raise self._error(event, f"more than {NODES_MAX:,} values once aliases are expanded")
        if isinstance(frame.data, list):
            frame.data.append(value)
        elif frame.key is _NO_KEY:
            frame.key = self._key(value, frame, event)
        elif frame.key is _MERGE_KEY:
            self._collect(frame, value, event)
            frame.key = _NO_KEY
        else:
            frame.data[frame.key] = value
            frame.key = _NO_KEY

    def _key(self, value: Any, frame: _Frame, event: Event) -> Any:
        if value is _MERGE_KEY:
            return value
        if not isinstance(value, str):
            raise self._error(event, f"the key {str(value)[:40]!r} is no text: put it in quotes")
        if value in frame.data:
            raise self._error(event, f"the key {value[:40]!r} stands there twice")
        return value

    def _collect(self, frame: _Frame, value: Any, event: Event) -> None:
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise self._error(event, "<< takes a mapping or a list of mappings")
            frame.merged.append(one)

    def _merge(self, frame: _Frame) -> None:
        for one in frame.merged:
            for key, value in one.items():
                frame.data.setdefault(key, value)

    def _scalar(self, event: ScalarEvent) -> Any:
        if event.tag not in {None, "!"}:
            raise self._error(event, f"tags such as {event.tag!r} are not read")
        text: str = event.value
        if not event.implicit[0]:
            return text
        try:
            value = self.scalars.read(text)
        except (ValueError, OverflowError, ConstructorError):
            raise self._error(event, f"{text[:40]!r} is no number") from None
        if isinstance(value, bool) and self._at_key():
            return text  # `on: [ValueError]` means the word
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(event, f"{text[:40]!r} cannot be kept as JSON")
        if value is _MERGE_KEY and not (self.stack and isinstance(self.stack[-1].data, dict)):
            return text
        return value

    def _at_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].data, dict) and self.stack[-1].key is _NO_KEY

    def _error(self, event: Event, problem: str) -> DefinitionError:
        return DefinitionError(f"{self.what}, line {_line(event)}: {problem}")


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


class _Scalars(SafeConstructor, Resolver):
    """What a plain scalar means."""

    def __init__(self) -> None:
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def read(self, text: str) -> Any:
        tag = self.resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        if tag == _NULL:
            return None
        if tag == _BOOL:
            return self.bool_values[text.lower()]
        if tag == _MERGE:
            return _MERGE_KEY
        if tag in {_INT, _FLOAT}:
            if len(text) > _DIGITS_MAX:
                raise ValueError(text[:40])
            node = ScalarNode(tag, text)
            return self.construct_yaml_int(node) if tag == _INT else self.construct_yaml_float(node)
        return text
