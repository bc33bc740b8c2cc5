# Two commands matter: `make demo` shows the product at work, `make test` proves it.
# Each does its own set-up in .venv; a second run needs no network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := $(VENV)/.node-packages
PYTEST_WORKERS ?= 2
# Of the simulator: seeds of the small scenario, and processes.
SEEDS ?= 1500
JOBS ?= 2

.PHONY: demo test simulate lint format bench clean help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "crdt-sync needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## a relay and three devices: offline edits, merge, a conflict resolved
	@$(BIN)/python demo/run.py

$(NODE_STAMP): $(STAMP) $(wildcard tests/interop/package*.json)
	$(BIN)/python tests/interop/node_packages.py
	@touch $@

test: $(STAMP) $(NODE_STAMP) ## all tests
	@$(BIN)/python -m pytest -q -n $(PYTEST_WORKERS) --dist loadgroup

simulate: $(STAMP) ## 1,500 seeds of ten minutes with every fault, some on simulated disks, some larger ones
	@$(BIN)/crdt-sync simulate run small --seeds 1..$(SEEDS) --jobs $(JOBS)
	@$(BIN)/crdt-sync simulate run small --storage disk --seeds 1..100 --jobs $(JOBS)
	@$(BIN)/crdt-sync simulate run swarm --seeds 1..30 --jobs $(JOBS)
	@$(BIN)/crdt-sync simulate run swarm_disk --seeds 31..50 --jobs $(JOBS)

lint: $(STAMP) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## all benchmark workloads, one JSON line each
	$(BIN)/python benchmarks/run.py all --json

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
