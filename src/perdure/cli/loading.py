"""Workflows from a user's file: a Python module, a graph document, or a trace."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import msgspec

from perdure.authoring.load import load_graph
from perdure.authoring.registry import Registry
from perdure.authoring.wfformat import Trace, graph_name, looks_like_trace, read_trace
from perdure.cli.inputs import read_file
from perdure.cli.trace_tasks import graph_of_trace
from perdure.errors import BadCall, PerdureError
from perdure.model.workflow import WorkflowSpec

DOCUMENTS = {".yaml", ".yml", ".json"}
WORK = "perdure-work"


class TraceOptions(msgspec.Struct, frozen=True):
    """How a trace is replayed. Shape: None where nothing was said."""

    speed: float | None = None
    shrink: float | None = None
    work: str | None = None

    @property
    def given(self) -> bool:
        return (self.speed, self.shrink, self.work) != (None, None, None)


def load_target(target: str, options: TraceOptions | None = None) -> WorkflowSpec:
    """The workflow that `FILE[:NAME]` means.

    Raises: `BadCall` naming what is missing, or the workflows to choose from; what is wrong with a document.
    """
    path, name = split_target(target)
    options = options or TraceOptions()
    if path.suffix in DOCUMENTS:
        if name:
            raise BadCall(f"{path.name} holds one graph: leave out {':' + name!r}")
        return load_document(path, options)
    if options.given:
        raise BadCall("--speed, --shrink and --work are for traces (.json)")
    return pick(load_module(path), path, name)


def split_target(target: str) -> tuple[Path, str]:
    """FILE and NAME, empty where none is given. Raises: `BadCall` when there is no such file."""
    file, sign, name = target.rpartition(":")
    if not sign or not re.fullmatch(r"[\w.+#-]+", name) or Path(target).is_file():
        file, name = target, ""
    path = Path(file).expanduser()
    if not path.is_file():
        hint = ": name a file FILE.py[:NAME]" if not path.suffix else ""
        raise BadCall(f"there is no file {file}{hint}")
    if path.suffix not in {".py", *DOCUMENTS}:
        raise BadCall(f"{file} is neither a program (.py) nor a graph or trace (.yaml, .json)")
    return path.resolve(), name


# --- programs ----------------------------------------------------------------------------------------


def load_module(path: Path) -> ModuleType:
    """Import a file under its stem, its folder first among those that imports look into, once.

    Raises: `BadCall` for a file that cannot be imported, and where.
    """
    name, known = path.stem, sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return known
        raise BadCall(f"{path.name} would stand in for the module {name!r} that is imported already: rename the file")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PerdureError as error:
        del sys.modules[name]
        raise BadCall(f"{path.name}: {error}") from error
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BadCall(f"{path.name} cannot be imported: {_said(error, path)}") from error
    return module


def _said(error: BaseException, path: Path) -> str:
    """An error of the user's file in a line, with the line of the file that raised it."""
    if isinstance(error, SystemExit):
        return 'it ends when it is imported: keep calls below `if __name__ == "__main__":`'
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else (lines or [None])[-1]
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")


def pick(module: ModuleType, path: Path, name: str) -> WorkflowSpec:
    """The workflow of this name, else the only one that the module defines."""
    held = {key: value for key, value in vars(module).items() if isinstance(value, WorkflowSpec)}
    if name:
        found = held.get(name) or next((spec for spec in held.values() if spec.name == name), None)
        if found is None:
            raise BadCall(f"{path.name} has no workflow {name!r}{_choice(held)}")
        return found
    own = {key: spec for key, spec in held.items() if spec.module in {module.__name__, ""}} or held
    if len({id(spec) for spec in own.values()}) == 1:
        return next(iter(own.values()))
    if not own:
        raise BadCall(f"{path.name} defines no workflow: decorate a function with @workflow or @graph")
    raise BadCall(f"{path.name} defines {len(own)} workflows: name one, as {path.name}:{next(iter(own))}{_choice(own)}")


def _choice(held: dict[str, WorkflowSpec]) -> str:
    return f" (there are: {', '.join(sorted(held))})" if held else " (it defines none)"


# --- documents ---------------------------------------------------------------------------------------


def load_document(path: Path, options: TraceOptions) -> WorkflowSpec:
    """The graph of a document or trace. Raises: `DefinitionError`, `NotATrace`."""
    body = read_file(str(path))
    if path.suffix == ".json" and looks_like_trace(body):
        return load_trace(read_trace(body), path, options)
    if options.given:
        raise BadCall(f"{path.name} is no trace: --speed, --shrink and --work are for traces")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return load_graph(body, imports=True, what=path.name, source=str(path))


def load_trace(trace: Trace, path: Path, options: TraceOptions) -> WorkflowSpec:
    """A trace as a graph. Raises: `BadCall` when its files would not fit the disk."""
    folder = Path(options.work or Path(WORK) / graph_name(trace)).absolute()
    speed, shrink = options.speed or 1.0, options.shrink or 1.0
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    size, free = sum(file.size for file in trace.files.values()) / shrink, shutil.disk_usage(there).free
    if size > free * 0.9:
        least = max(10, 10 ** len(str(int(size * shrink / free))))
        raise BadCall(
            f"the files of this trace take {size / 1e9:,.1f} GB, the disk of {there} has {free / 1e9:,.1f} GB free: "
            f"give --shrink {least:,}".replace(f"{least:,}", str(least))
        )
    return graph_of_trace(trace, speed, shrink, str(folder), str(path))


# --- for a replay ------------------------------------------------------------------------------------


def registry_of(sources: Sequence[str]) -> Registry:
    """What the files of these names define. Raises: `BadCall` for one that is not here or cannot be read."""
    registry = Registry()
    for source in sources:
        path = split_target(source)[0]
        registry.serve(load_document(path, TraceOptions()) if path.suffix in DOCUMENTS else load_module(path))
    return registry
