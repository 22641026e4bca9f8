"""The scripts that write parts of the pages, as modules."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

from tests.docs.pages import ROOT


def script(name: str) -> ModuleType:
    """A script of the project, without running it."""
    loader = SourceFileLoader(f"scripts_{name.replace('-', '_')}", str(ROOT / "scripts" / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module
