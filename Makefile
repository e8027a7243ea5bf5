# `make` alone explains itself. Every target can be run alone and does again only what is out of date.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# The tests start hundreds of interpreters: without bytecode each would compile itself anew.
unexport PYTHONDONTWRITEBYTECODE

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= python3
LISTEN ?= 127.0.0.1:8080
PYTEST := $(BIN)/python -m pytest
# How many processes run the tests; `WORKERS=0 DAEMONS=0` for one that a debugger can be in. Those that start daemons
# mostly wait for them, so there may be more than cores; a file stays together, for what its tests share.
WORKERS ?= auto
DAEMONS ?= 4
IN_ONE  := not process and not engine and not large_engine and not packaging
CODE   := modelyard router supervisor registry config cli tests demo bench

# The engine that `make run` installs: what this machine runs best.
ENGINE ?= $(shell if [ "$$(uname -s)-$$(uname -m)" = Darwin-arm64 ]; then echo vllm-mlx; \
            elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then echo vllm; \
            else echo mlx-lm; fi)

# -- for everybody ---------------------------------------------------------------------------------

.PHONY: help
help: ## show this
	@awk 'BEGIN {FS = ":.*## "} /^# -- / {gsub(/^# -- | -+$$/, ""); printf "\n\033[1m%s\033[0m\n", $$0} \
	  /^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.installed engine ## install all that is needed, start the daemon on 127.0.0.1:8080, Ctrl-C stops it
	@exec $(BIN)/modelyard serve --listen $(LISTEN) $(SERVE_ARGS)

.PHONY: engine
engine: $(VENV)/.installed ## install this platform's engine, or ENGINE=mlx-lm|vllm|vllm-mlx
	@$(BIN)/modelyard engine path $(ENGINE) >/dev/null 2>&1 || $(BIN)/modelyard engine install $(ENGINE)

# -- for whoever changes it ------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.installed-dev ## make .venv with modelyard, editable, and everything that checks and tests it

.PHONY: test
test: $(VENV)/.installed-dev engine-for-tests ## rings 1-5: pure, in memory, wire, processes, and mlx-lm on the CPU
	$(PYTEST) -n $(WORKERS) -m "$(IN_ONE)"
	$(PYTEST) -n $(DAEMONS) --dist loadfile -m "(process or engine) and not packaging and not large_engine"
	@$(MAKE) simulate

.PHONY: simulate
simulate: $(VENV)/.installed-dev ## a million events of random worlds under the real supervisor; minutes
	$(PYTEST) -n $(WORKERS) -m simulation tests/sim -rP

.PHONY: test-fast
test-fast: $(VENV)/.installed-dev ## rings 1-3: no process, no sleep, under 30 s
	$(PYTEST) -n $(WORKERS) -m "$(IN_ONE)"

.PHONY: test-process
test-process: $(VENV)/.installed-dev ## ring 4: a real daemon, real shims, scripted engines
	$(PYTEST) -n $(DAEMONS) --dist loadfile -m process

.PHONY: test-rounds
test-rounds: $(VENV)/.installed-dev engine-for-tests ## the accidents of ring 4, 100 rounds each, hand-overs, and SDKs on slow starts: an hour
	MODELYARD_ROUNDS=100 $(PYTEST) -rP tests/process/test_rounds.py tests/daemon/test_handover.py \
	  tests/engines/test_handover_with_mlx_lm.py
	MODELYARD_COLD_SECONDS=30 $(PYTEST) --timeout 300 tests/sdk

.PHONY: soak
soak: $(VENV)/.installed-dev ## 200 clients of every temper for SECONDS=900; memory, descriptors and leases must stay
	MODELYARD_SOAK_SECONDS=$(or $(SECONDS),900) $(PYTEST) -s tests/process/test_soak.py

.PHONY: test-engines
test-engines: $(VENV)/.installed-dev engine-for-tests ## ring 5 with vLLM, vllm-mlx and a GPU, as far as they are here
	$(PYTEST) -m "engine or large_engine"

.PHONY: engine-for-tests
engine-for-tests: $(VENV)/.installed-dev
	@$(BIN)/modelyard engine path mlx-lm >/dev/null 2>&1 || $(BIN)/modelyard engine install mlx-lm

.PHONY: fuzz
fuzz: .venv-fuzz/.installed ## fuzz what the front reads and the control API, SECONDS=60 each; keeps what is new
	.venv-fuzz/bin/python -m tests.fuzz.campaign --seconds $(or $(SECONDS),60) $(TARGETS)
	.venv-fuzz/bin/python -m tests.fuzz.control_api --seconds $(or $(SECONDS),60)

.PHONY: check
check: lint type imports fresh wheel-test ## everything that is no test run: style, types, layers, generated files, wheel

.PHONY: lint
lint: $(VENV)/.installed-dev ## ruff: rules and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

.PHONY: fmt
fmt: $(VENV)/.installed-dev ## format, and fix what can be fixed
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

.PHONY: type
type: $(VENV)/.installed-dev ## mypy, strict, tests too
	$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.installed-dev ## the direction of dependencies
	$(BIN)/lint-imports

.PHONY: fresh
fresh: $(VENV)/.installed-dev ## generated files are what they are generated from
	$(BIN)/python -m supervisor.lifecycle_diagram --check
	$(BIN)/python -m config.reference --check
	$(BIN)/python -m modelyard.outputs --check
	$(BIN)/python -m router.control.metrics_page --check
	$(BIN)/python -m router.control.api_page --check
	@$(BIN)/python -m config.schema_json | cmp -s - config/schema.json || \
	  { echo "config/schema.json is not what config/schema.py says: run \`make reference\`" >&2; exit 1; }

.PHONY: diagrams reference
diagrams: $(VENV)/.installed-dev ## draw docs/explanation/lifecycle.md from the table
	$(BIN)/python -m supervisor.lifecycle_diagram
reference: $(VENV)/.installed-dev ## write what docs/reference and config/schema.json have from the code
	$(BIN)/python -m config.schema_json > config/schema.json
	$(BIN)/python -m config.reference
	$(BIN)/python -m modelyard.outputs
	$(BIN)/python -m router.control.metrics_page
	$(BIN)/python -m router.control.api_page

.PHONY: screenshots
screenshots: $(VENV)/.installed-dev engine-for-tests ## take docs/images/status*.png from a daemon that runs the demo models
	$(BIN)/python -m tests.support.screenshots

.PHONY: wheel
wheel: $(VENV)/.installed-dev ## build dist/*.whl
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel

.PHONY: build
build: $(VENV)/.installed-dev ## build dist/*.whl and the source archive
	rm -rf dist
	$(BIN)/python -m hatchling build

.PHONY: wheel-test
wheel-test: $(VENV)/.installed-dev ## install the wheel in a strange place, beside PyPI's supervisor, and use it
	$(PYTEST) tests/packaging -m packaging

.PHONY: bench bench-check bench-write
bench: $(VENV)/.installed-dev ## the front beside nginx, haproxy, an aiohttp proxy and two Rust routers (those that are here)
	$(BIN)/python -m bench
bench-check: $(VENV)/.installed-dev ## the same with the routers installed, apart; fails where a limit is not met
	$(BIN)/python -m bench --install --check
bench-write: $(VENV)/.installed-dev ## the same, into docs/explanation/performance.md and its picture
	$(BIN)/python -m bench --install --write

.PHONY: bench-scheduler bench-scheduler-write
bench-scheduler: $(VENV)/.installed-dev ## our scheduler and three others on the eight traces of bench/traces
	$(BIN)/python -m bench.scheduler
bench-scheduler-write: $(VENV)/.installed-dev ## the same, into docs/explanation/scheduling.md and its picture
	$(BIN)/python -m bench.scheduler write

.PHONY: clean
clean: ## remove what was built here; installed engines stay (`modelyard engine remove`)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# How .venv comes to be: once, and again when pyproject.toml changes.

# uv where there is one; pip where there is none, and where uv cannot reach the index that pip knows.
define into_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: modelyard needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@UV=$$(command -v uv || { test -x $(BIN)/uv && echo $(BIN)/uv; } || true); \
	with_uv() { test -n "$$UV" && { test -x $(BIN)/python || "$$UV" venv -q --python $(PYTHON) $(VENV); } && \
	  "$$UV" pip install --python $(BIN)/python $(1); }; \
	with_pip() { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q --upgrade 'pip>=25.1' && \
	  $(BIN)/python -m pip install $(1); }; \
	with_uv || with_pip || { echo "error: $(VENV) was not made: the lines above say why; make $(MAKECMDGOALS) tries again" >&2; exit 1; }
	@touch $@
endef

$(VENV)/.installed: pyproject.toml
	$(call into_venv,-e .)

$(VENV)/.installed-dev: pyproject.toml
	$(call into_venv,-e . --group dev)
	@touch $(VENV)/.installed

.venv-fuzz/.installed: VENV := .venv-fuzz
.venv-fuzz/.installed: BIN := .venv-fuzz/bin
.venv-fuzz/.installed: pyproject.toml
	$(call into_venv,-e . --group dev --group fuzz)
