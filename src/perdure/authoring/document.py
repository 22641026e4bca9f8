"""Graph documents: a definition as JSON or YAML text, and back, with limits (F91).

    graph: etl
    version: "1"
    parameters: [day, {name: limit, default: 10}]
    nodes:
    - name: load
      task: shop.etl:load            # or the name of a task that is registered
      args: {rows: {step: check, path: [rows]}, day: {input: day}, mode: fast}
      when: check.rows > 0           # CEL, or {call: "shop.etl:etl#load", names: [check]}
      after: [inspect]
      join: done                     # succeeded (default), done, any, or a number
      map: rows                      # the parameter that fans out
      options: {timeout: 30s, retry: {attempts: 5}}
    output: {step: load}

An argument is a literal, or `{step: name, path: [...]}`, `{input: name, path: [...]}`, or a list or mapping with such
inside; `{value: ...}`, `{list: [...]}` and `{dict: {...}}` say explicitly what would be read as something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from perdure.authoring.condition import from_text
from perdure.authoring.yamltext import Located, read_yaml, write_yaml
from perdure.errors import DefinitionError, PerdureError
from perdure.model.graph import (
    NESTING_MAX,
    Argument,
    Condition,
    Fields,
    GraphDefinition,
    InputRef,
    Many,
    Node,
    StepRef,
    Value,
)
from perdure.model.payload import canonical, strict_json

JSON_MAX: Final = 64 << 20
_RESERVED: Final = frozenset({"step", "input", "value", "list", "dict"})
_GRAPH_KEYS: Final = frozenset({"graph", "version", "parameters", "nodes", "output"})
_NODE_KEYS: Final = frozenset({"name", "task", "args", "after", "join", "when", "map", "child", "options"})


# --- out -------------------------------------------------------------------------------------------


def to_json(definition: GraphDefinition, references: Mapping[str, str] | None = None) -> str:
    """The definition as a JSON document; `references` replace names of tasks."""
    return msgspec.json.format(msgspec.json.encode(to_data(definition, references)), indent=2).decode()


def to_yaml(definition: GraphDefinition, references: Mapping[str, str] | None = None) -> str:
    """The definition as a YAML document; `references` replace names of tasks. Raises: `DefinitionError` when it is too large."""
    return write_yaml(to_data(definition, references))


def to_data(definition: GraphDefinition, references: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The definition in the form of a document."""
    references = references or {}
    defaults = definition.defaults
    data: dict[str, Any] = {
        "graph": definition.name,
        "version": definition.version,
        "parameters": [
            {"name": name, "default": _decoded(defaults[name])} if name in defaults else name
            for name in definition.parameters
        ],
        "nodes": [_node_data(node, references) for node in definition.nodes],
    }
    if definition.output is not None:
        output = _argument_data(definition.output)
        data["output"] = {"value": None} if output is None else output
    return data


def _node_data(node: Node, references: Mapping[str, str]) -> dict[str, Any]:
    data: dict[str, Any] = {"name": node.name, "task": references.get(node.task, node.task)}
    if node.child:
        data["child"] = True
    if node.args:
        data["args"] = {name: _argument_data(argument) for name, argument in node.args.items()}
    if node.after:
        data["after"] = list(node.after)
    if node.join != "succeeded":
        data["join"] = node.join
    if node.when is not None:
        when = node.when
        data["when"] = when.cel if when.cel is not None else {"call": when.call, "names": list(when.names)}
    if node.map is not None:
        data["map"] = node.map
    if node.options:
        data["options"] = {name: _decoded(raw) for name, raw in node.options.items()}
    return data


def _argument_data(argument: Argument) -> Any:
    if isinstance(argument, StepRef):
        return {"step": argument.step, **({"path": list(argument.path)} if argument.path else {})}
    if isinstance(argument, InputRef):
        return {"input": argument.name, **({"path": list(argument.path)} if argument.path else {})}
    if isinstance(argument, Value):
        value = _decoded(argument.value)
        return {"value": value} if _reserved_inside(value) else value
    if isinstance(argument, Many):
        items = [_argument_data(item) for item in argument.items]
        return items if _refers(argument.items) else {"list": items}
    fields = {name: _argument_data(item) for name, item in argument.fields.items()}
    plain = _refers(argument.fields.values()) and not _RESERVED & fields.keys()
    return fields if plain else {"dict": fields}


def _refers(items: Any) -> bool:
    return any(not isinstance(item, Value) for item in items)


def _reserved_inside(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(_RESERVED & value.keys()) or any(_reserved_inside(one) for one in value.values())
    return isinstance(value, list) and any(_reserved_inside(one) for one in value)


def _decoded(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw)


# --- in --------------------------------------------------------------------------------------------


def from_json(text: str | bytes, what: str = "document") -> GraphDefinition:
    """Raises: `DefinitionError` with the line, for text that is no JSON or no graph."""
    try:
        data = strict_json(text, what, JSON_MAX)
    except PerdureError as error:
        raise DefinitionError(str(error)) from None
    return from_data(data, Located(what))


def from_yaml(text: str | bytes, what: str = "document") -> GraphDefinition:
    """Raises: `DefinitionError` with the line, for text that is no YAML within the limits or no graph."""
    data, located = read_yaml(text, what)
    return from_data(data, located)


def from_data(data: Any, at: Located) -> GraphDefinition:
    """A definition from a document's data; conditions in CEL are compiled to learn what they read.

    Raises: `DefinitionError` naming the place of what is not understood.
    """
    _only(data, _GRAPH_KEYS, at, "a graph")
    for key in ("graph", "nodes"):
        if key not in data:
            raise DefinitionError(f"{at.at(data)}: a graph needs {key!r}")
    name = _text(data["graph"], at, data, "graph")
    parameters, defaults = _parameters(data.get("parameters", []), at)
    if not isinstance(data["nodes"], list):
        raise DefinitionError(f"{at.at(data)}: nodes: is no list")
    names = (one.get("name") for one in data["nodes"] if isinstance(one, dict))
    known = {*parameters, *(name for name in names if isinstance(name, str))}
    nodes = tuple([_node(one, known, at) for one in data["nodes"]])
    output = None if data.get("output") is None else _argument(data["output"], at, "output", 0)
    return GraphDefinition(
        name, _text(data.get("version", "1"), at, data, "version"), parameters, nodes, output, defaults
    )


def _parameters(data: Any, at: Located) -> tuple[tuple[str, ...], dict[str, msgspec.Raw]]:
    if not isinstance(data, list):
        raise DefinitionError(f"{at.what}: parameters: {data!r} is no list")
    names, defaults = [], {}
    for one in data:
        if isinstance(one, dict):
            _only(one, frozenset({"name", "default"}), at, "a parameter")
            names.append(_text(one.get("name"), at, one, "name"))
            if "default" in one:
                defaults[names[-1]] = _raw(one["default"])
        else:
            names.append(_text(one, at, data, "parameters"))
    return tuple(names), defaults


def _node(data: Any, known: set[Any], at: Located) -> Node:
    _only(data, _NODE_KEYS, at, "a step")
    name = _text(data.get("name"), at, data, "name")
    where = f"{at.at(data)}: step {name}"
    args, options, join = data.get("args", {}), data.get("options", {}), data.get("join", "succeeded")
    if not isinstance(args, dict) or not isinstance(options, dict):
        raise DefinitionError(f"{where}: args: and options: are mappings")
    after = data.get("after", [])
    if isinstance(after, str) or not isinstance(after, list) or not all(isinstance(one, str) for one in after):
        raise DefinitionError(f"{where}: after: {after!r} is no list of steps")
    if isinstance(join, bool) or not isinstance(join, str | int):
        raise DefinitionError(f"{where}: join: {join!r} is none of succeeded, done, any and a number")
    child = data.get("child", False)
    if not isinstance(child, bool):
        raise DefinitionError(f"{where}: child: {child!r} is neither true nor false")
    return Node(
        name=name,
        task=_text(data.get("task"), at, data, "task"),
        args={key: _argument(value, at, f"step {name}, argument {key}", 0) for key, value in args.items()},
        after=tuple(after),
        join=join,  # type: ignore[arg-type]
        when=_condition(data.get("when"), known, at, where),
        map=None if data.get("map") is None else _text(data["map"], at, data, "map"),
        child=child,
        options={key: _raw(value) for key, value in options.items()},
    )


def _condition(data: Any, known: set[Any], at: Located, where: str) -> Condition | None:
    if data is None:
        return None
    if isinstance(data, str):
        return from_text(data, known, where)
    _only(data, frozenset({"call", "names"}), at, f"{where}: when:")
    names = data.get("names", [])
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise DefinitionError(f"{where}: when: names: {names!r} is no list of steps")
    return Condition(tuple(names), call=_text(data.get("call"), at, data, "call"))


def _argument(data: Any, at: Located, where: str, depth: int) -> Argument:
    """An argument: what holds no reference is a literal as a whole."""
    if depth > NESTING_MAX:
        raise DefinitionError(f"{at.at(data)}: {where}: nested more than {NESTING_MAX} deep")
    if isinstance(data, list):
        items = tuple([_argument(one, at, where, depth + 1) for one in data])
        return Many(items) if _refers(items) else _whole(data, items)
    if not isinstance(data, dict):
        return Value(_raw(data))
    if _RESERVED & data.keys():
        return _tagged(data, at, where, depth)
    fields = {key: _argument(one, at, where, depth + 1) for key, one in data.items()}
    return Fields(fields) if _refers(fields.values()) else _whole(data, fields.values())


def _whole(data: Any, parts: Iterable[Argument]) -> Value:
    values = [_decoded(part.value) for part in parts if isinstance(part, Value)]
    return Value(_raw(values if isinstance(data, list) else dict(zip(data, values, strict=True))))


def _tagged(data: dict[str, Any], at: Located, where: str, depth: int) -> Argument:
    place = f"{at.at(data)}: {where}"
    tag = next(iter(_RESERVED & data.keys()))
    allowed = {tag, "path"} if tag in {"step", "input"} else {tag}
    if data.keys() - allowed:
        raise DefinitionError(
            f"{place}: {sorted(data)} is no reference: write {{value: ...}} around a literal with such keys"
        )
    inner = data[tag]
    if tag == "value":
        return Value(_raw(inner))
    if tag == "list" and isinstance(inner, list):
        return Many(tuple([_argument(one, at, where, depth + 1) for one in inner]))
    if tag == "dict" and isinstance(inner, dict):
        return Fields({key: _argument(one, at, where, depth + 1) for key, one in inner.items()})
    if tag in {"list", "dict"}:
        raise DefinitionError(f"{place}: {tag}: {inner!r} is none")
    path = data.get("path", [])
    if not isinstance(path, list) or any(isinstance(one, bool) or not isinstance(one, str | int) for one in path):
        raise DefinitionError(f"{place}: path: {path!r} is no list of names and numbers")
    name = _text(inner, at, data, tag)
    return StepRef(name, tuple(path)) if tag == "step" else InputRef(name, tuple(path))


def _only(data: Any, keys: frozenset[str], at: Located, what: str) -> None:
    if not isinstance(data, dict):
        raise DefinitionError(f"{at.at(data)}: {what} is a mapping, not {str(data)[:60]!r}")
    unknown = data.keys() - keys
    if unknown:
        raise DefinitionError(f"{at.at(data)}: {what} has no {min(unknown)!r}; it has {', '.join(sorted(keys))}")


def _text(value: Any, at: Located, data: Any, key: str) -> str:
    if not isinstance(value, str):
        hint = ": put it in quotes" if isinstance(value, int | float) and not isinstance(value, bool) else ""
        raise DefinitionError(f"{at.at(data)}: {key}: {value!r} is no text{hint}")
    return value


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(canonical(msgspec.json.encode(value)))
