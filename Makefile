# Everything here works on a machine with python3, gcc and make; `make` alone says what there is.

VENV   := .venv
PY     := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check fast bench torture format lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMPS)/package  ## make .venv with the pinned packages (once)

# Three stamps, each made again only when what it is made from has changed.
$(STAMPS)/requirements: requirements/dev.txt scripts/setup
	@scripts/setup $(VENV) requirements/dev.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/package: pyproject.toml $(STAMPS)/requirements
	@$(PY) -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(STAMPS)/strace: $(STAMPS)/requirements
	@scripts/setup --strace
	@touch $@

demo: setup  ## set up and run the main job on real input
	@$(PY) -m demo

check: setup  ## format, lint, types, imports, dependencies, security, house rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m deptry src
	$(PY) -m bandit -q -r -c pyproject.toml src
	$(PYTEST) -q tests/house

test: check $(STAMPS)/strace  ## set up, check, and run all tests
	$(PYTEST) -q -n 2 --dist worksteal --ignore tests/house

fast: setup  ## the tests that take no time: no real kills, no torture
	$(PYTEST) -q -n 2 --dist worksteal -m "not crash and not slow and not torture"

torture: setup $(STAMPS)/strace  ## the long fault tests
	$(PYTEST) -q -n 2 --dist worksteal --timeout 1800 -m torture

bench: setup  ## measure, as a table and as JSON
	@$(PY) -m bench

format: setup  ## put the code into shape
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet

lock:  ## pin the dependencies anew (needs uv; add UPGRADE=--upgrade for newer ones)
	$(LOCK) $(UPGRADE) --output-file requirements/core.txt
	$(LOCK) $(UPGRADE) --all-extras requirements/dev.in --output-file requirements/dev.txt

clean:  ## remove the environment and what the tools leave
	rm -rf $(VENV) build dist .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests demo bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
