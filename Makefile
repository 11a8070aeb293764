# `make sweep` runs the main job and `make test` passes the tests; both do all the set-up first.
# Nothing but Python 3.11 or newer and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCHES := pieces platform study importing figures report thaw
TIMES := runs/tests
MUTANTS := tests/mutants
# Three at a time keep two cores at work: half of a test's time it waits for Ray, MLflow or a browser.
# One that is gone ends the run, with the name of its test: xdist would run that test again and again.
WORKERS := -n 3 --max-worker-restart 0
# One thread a process: several run at a time, and the rounding of sums does not hang on the machine.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=15

# The tests start hundreds of processes; without bytecode each compiles every module anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup sweep paper-gpu docs results test test-long test-next test-times lint check gpu gpu-check bench bench-gpu bench-sweep bench-slots chaos mutants

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

sweep: setup ## The main job: a procedural store, a sweep on it, the best promoted as champion.
	$(BIN)/posetune data import --format procedural --image-size 64 --level plain --limit 2000 --out data/procedural
	$(BIN)/posetune sweep search_spaces/selfpose/quickstart.yaml --name quickstart
	$(BIN)/posetune promote quickstart --model selfpose --alias champion --out out/quickstart
	$(BIN)/posetune show quickstart
	@echo "Where to look next: out/quickstart/random.png  (8 test frames), $(BIN)/posetune ui  (curves),"
	@echo "docs/data.md  (your own data)"

paper-gpu: setup ## The paper's size and its twin on one GPU, nine minutes a call; PAPER="--mocap FILE" for real motion.
	$(BIN)/python tests/benchmarks/measure_paper.py $(PAPER)

docs: setup ## Build docs/ as a site in runs/docs; a warning is an error.
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict --quiet
	@echo "the site: runs/docs/index.html"

results: setup ## Make the tables of docs/results anew from the JSON of the benchmarks.
	$(BIN)/python tests/support/results_tables.py

test: setup ## The tests but the long ones, three at a time; their times in runs/tests.
	$(PYTEST) $(WORKERS) -m "not long" --junitxml=$(TIMES)/test.xml

test-long: setup ## What takes long: clusters of several nodes, proofs of learning, the wheel.
	$(PYTEST) $(WORKERS) --verbose -m long --junitxml=$(TIMES)/test-long.xml

test-next: ## The fast tests against the newest Ray, Optuna, MLflow and torch, in runs/next; what breaks, and where.
	$(PYTHON) tests/support/next_versions.py $(NEXT)

test-times: ## The times of the last runs of the tests, by module.
	$(BIN)/python tests/support/times_table.py $(TIMES)/*.xml

lint: setup ## Format, style, types, import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## Lint and the fast tests, each within two seconds of processor time.
	$(PYTEST) $(WORKERS) -m "not slow and not long" --most-processor-s 2 \
	  --junitxml=$(TIMES)/check.xml

gpu: setup ## On a GPU: gpu-check, then paper-gpu, nine minutes each; goes on where it was cut off.
	$(BIN)/python tests/support/gpu_check.py $(GPU) || test $$? -ne 2  # 2: there is none
	$(MAKE) paper-gpu

gpu-check: setup ## What only a GPU can show, in nine minutes (GPU="--only steps"); runs/bench/gpu_check.json.
	$(BIN)/python tests/support/gpu_check.py $(GPU)

bench: setup ## Measure the hot pieces beside their rivals, at most 15 minutes; JSON in runs/bench.
	$(BIN)/python -m pip install --quiet --constraint cluster/constraints.txt --group bench
	$(BIN)/python -m pytest $(BENCHES:%=tests/benchmarks/bench_%.py) --override-ini python_files='bench_*.py' -s

bench-sweep: setup ## Measure whole sweeps beside their rivals, hours; results in tests/benchmarks/results.
	$(BIN)/python -m pytest tests/benchmarks/bench_sweep.py --override-ini python_files='bench_*.py' -s
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/replay_searches.py

bench-gpu: setup ## Measure the step at the paper's size on one CUDA device, and trials at a time, some ten minutes; JSON in runs/bench.
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "bench-gpu: no CUDA device here; nothing was measured")'
	$(BIN)/python -m pytest tests/benchmarks/bench_gpu.py --override-ini python_files='bench_*.py' -s

bench-slots: setup ## Measure the driver with 500 toy trials on 64 simulated slots; 35 minutes, 10 GB of memory.
	$(BIN)/python -m pytest tests/benchmarks/bench_slots.py --override-ini python_files='bench_*.py' -s

chaos: setup ## Kill sweeps 200 times at seeded moments, an hour; the table in docs/results/chaos.md.
	$(BIN)/python tests/support/chaos.py --kills 200 --out docs/results/chaos.md

mutants: setup ## Plant ten faults and sixty mutants, one at a time, and say which test finds each; an hour.
	rm -f $(MUTANTS)/results/*_after.json
	$(BIN)/python $(MUTANTS)/run.py $(MUTANTS)/faults.json $(MUTANTS)/results/faults_after.json
	$(BIN)/python $(MUTANTS)/run.py $(MUTANTS)/mutants.json $(MUTANTS)/results/mutants_after.json
	$(BIN)/python $(MUTANTS)/table.py
