# Every target does its own set-up and is safe to repeat, and to start again after being killed.
#   make demo     the whole loop on this machine, no GPU, nothing to download but packages
#   make test     lint, types, layers and the tests that are not slow
# CONTRIBUTING.md gives the plain commands behind each.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint slow soak wheel models clean

VENV := .venv
BIN := $(VENV)/bin
# Written last, so a set-up that was killed is done anew.
READY := $(VENV)/ready
TORCH := $(shell grep -m1 '^torch==' constraints.txt) $(shell grep -m1 '^setuptools==' constraints.txt)
FAST := not slow and not soak and not demo and not gpu
# Those with Ray share one cluster that is started once, so they cannot run side by side; the others can.
WITH_RAY := tests/ray tests/e2e tests/cluster

# Quiet where it does not matter; a caller's own setting wins.
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export TOKENIZERS_PARALLELISM ?= false

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## .venv with the pinned packages (every other target does this by itself)

$(READY): pyproject.toml constraints.txt
	@python=$$(bash .ci/find-python) && { [ -e $@ ] || $$python -m venv --clear $(VENV); }
	@rm -f $@
	$(BIN)/pip install --quiet $(TORCH)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --no-build-isolation -c constraints.txt deepspeed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## the whole loop, from rows to a served adapter that is replaced while it serves
	$(BIN)/compass-ray demo

test: lint ## lint, then the tests that are not slow
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '$(FAST)' -n 2 $(WITH_RAY:%=--ignore=%)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m '$(FAST)' $(WITH_RAY)

lint: $(READY) ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(READY) ## slow tests: complete runs on Ray, kills, load, real data, the full demo
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m '(slow or demo) and not gpu' --timeout 1800

soak: $(READY) ## the longest tests, which CI does not run
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m 'soak and not gpu' --timeout 3600

wheel: $(READY) ## dist/*.whl
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

models: $(READY) ## build the demo's models anew from the atlas
	$(BIN)/python -m compass_ray.models.tiny compass_ray/sources/atlas/assets

clean: ## remove what make made, runs excepted
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
