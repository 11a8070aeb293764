# `make sweep` runs the main job and `make test` passes the tests; both do all the set-up first.
# Nothing but Python 3.11 or newer and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCHES := pieces platform study importing

.DEFAULT_GOAL := help
.PHONY: help setup sweep paper-gpu test lint check bench bench-gpu bench-sweep bench-slots

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## Make .venv with the pinned versions; does nothing when it is there.

$(READY): pyproject.toml cluster/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "posetune needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V); give PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint cluster/constraints.txt --editable . --group dev
	@touch $@

sweep: setup ## The main job: a procedural store, a sweep on it, the best promoted as candidate.
	$(BIN)/posetune data import --format procedural --image-size 64 --level plain --limit 2000 --out data/procedural
	$(BIN)/posetune sweep search_spaces/selfpose/quickstart.yaml --name quickstart
	$(BIN)/posetune promote quickstart --model selfpose
	$(BIN)/posetune show quickstart
	@echo "Where to look next: $(BIN)/posetune ui  (curves and artefacts), README.md  (your own data)"

paper-gpu: setup ## The paper's size on one GPU, 9 minutes, and its supervised twin; figures in out/paper_gpu.
	PATH="$(CURDIR)/$(BIN):$$PATH" bash search_spaces/selfpose/paper_gpu.sh

test: setup ## All tests, and which of them took longest.
	$(BIN)/python -m pytest --durations=15

lint: setup ## Format, style, types, import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## Lint and the fast tests.
	$(BIN)/python -m pytest -m "not slow"

bench: setup ## Measure the hot pieces beside their rivals, at most 15 minutes; JSON in runs/bench.
	$(BIN)/python -m pip install --quiet --constraint cluster/constraints.txt --group bench
	$(BIN)/python -m pytest $(BENCHES:%=tests/benchmarks/bench_%.py) --override-ini python_files='bench_*.py' -s

bench-sweep: setup ## Measure whole sweeps beside their rivals, hours; results in tests/benchmarks/results.
	$(BIN)/python -m pytest tests/benchmarks/bench_sweep.py --override-ini python_files='bench_*.py' -s

bench-gpu: setup ## Measure the step at the paper's size on one CUDA device, under 9 minutes; JSON in runs/bench.
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "bench-gpu: no CUDA device here; nothing was measured")'
	$(BIN)/python -m pytest tests/benchmarks/bench_gpu.py --override-ini python_files='bench_*.py' -s

bench-slots: setup ## Measure the driver with 500 toy trials on 64 simulated slots; 35 minutes, 10 GB of memory.
	$(BIN)/python -m pytest tests/benchmarks/bench_slots.py --override-ini python_files='bench_*.py' -s
