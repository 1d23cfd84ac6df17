# `make demo` and `make test` each work as the first command in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes of one thread each beat one process of two on a shared machine.
QUIET_RUN := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check format bench gpu-check gpu-wheels base-model wheel clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with the pinned packages and this project (done by the others when needed).

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("forgetbench needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## Fine-tune with four recipes, score every checkpoint, show the 2x2, make its report (a few minutes).
	$(BIN)/forgetbench sweep
	$(BIN)/forgetbench report outputs/demo

test: $(READY) ## Run the tests (a few minutes, no network).
	$(QUIET_RUN) $(BIN)/python -m pytest -m 'not slow' -n 2

test-all: $(READY) ## Run the tests, the slow ones too.
	$(QUIET_RUN) $(BIN)/python -m pytest -n 2

check: $(READY) ## Lint, format check and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## Format the code and fix what can be fixed.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## Measure speed and memory against named baselines.
	$(QUIET_RUN) $(BIN)/python -m benchmarks

gpu-check: ## Check that everything holds on this machine's GPU, and how fast it is (eight minutes).
	PYTHON=$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.sh $(GPU_OPTIONS)

gpu-wheels: ## Collect in wheels/ what a GPU machine without a network needs (PYTHON: of the same version as there).
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir wheels -r benchmarks/gpu_wheels.txt

base-model: $(READY) ## Train the embedded base model again from random weights (an hour and a half on one core).
	OMP_NUM_THREADS=1 $(BIN)/forgetbench finetune model=tiny_random data=base_words recipe=base_words name=base_words threads=1
	$(BIN)/python -m tools.export_base outputs/base_words
	OMP_NUM_THREADS=1 $(BIN)/forgetbench finetune model=local model.path=outputs/base_words/model model.attention=eager \
		data=base_model recipe=base_model name=base_model threads=1
	$(BIN)/python -m tools.export_base outputs/base_words outputs/base_model

wheel: $(READY) ## Build the wheel into dist/.
	$(BIN)/python -m build --wheel

clean: ## Remove caches and build products; outputs/ and .venv stay.
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
