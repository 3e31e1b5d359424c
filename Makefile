# `make demo` and `make test` set up all that they need in $(VENV), with the versions of constraints.txt.
#
#   make demo         make the maze data, train GTP and its cloning variant, evaluate, draw the pictures
#                     (after Ctrl-C: make demo DEMO_FLAGS=resume=outputs/demo goes on)
#   make test         lint, types, tests and doctests
#   make test-slow    the tests that take minutes
#   make format       apply the formatter and the linter's fixes
#   make clean        remove the environment, caches and outputs/demo (data in .minari/ stays)
#
# Variables: VENV (.venv), PYTHON (the first of python3.11, 3.12, 3.13 and python3 that fits),
# PIP_FLAGS (e.g. PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu": on Linux PyPI's torch
# is the CUDA build, which works without a GPU but is larger), MAZE (umaze, medium, large),
# DEMO_FLAGS (overrides of recipes/gtp/config.yaml, e.g. DEMO_FLAGS="optim.steps=20000"),
# TEST_FLAGS (of pytest; by default a process for each core).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
MAZE ?= umaze
DEMO_FLAGS ?=
DEMO_DIR := outputs/demo
# A process for each core; each loads torch (about half a GiB), hence the limit.
TEST_FLAGS ?= -n auto --maxprocesses 8 --dist worksteal
# The pinned versions have wheels for these interpreters.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	if $$python -c '$(SUPPORTED)' 2>/dev/null; then echo $$python; break; fi; done)

export MPLBACKEND ?= Agg
# The networks are small: more threads hardly help, and slow down much where other processes run.
export OMP_NUM_THREADS ?= 1
export MINARI_DATASETS_PATH ?= $(CURDIR)/.minari
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow format clean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

# Debian and Ubuntu ship python3 without its venv module: say which package brings it.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found. On Debian or Ubuntu: apt install python3 python3-venv" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| { rm -rf $(VENV); $(PYTHON) -m virtualenv --quiet $(VENV) 2>/dev/null; } \
		|| { rm -rf $(VENV); echo "'$(PYTHON) -m venv' does not work here. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.demo: EXTRAS := sim,recipes
$(VENV)/.test: EXTRAS := dev
$(VENV)/.demo $(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torchrl_gtp[$(EXTRAS)] and its pinned dependencies (a few minutes the first time)"
	@$(BIN)/python -m pip install --progress-bar off $(PIP_FLAGS) -c constraints.txt -e ".[$(EXTRAS)]" \
		| { grep --line-buffered -oE '^ *(Downloading|Installing).*' || true; }
	@touch $@

demo: $(VENV)/.demo
	@echo "== Data =="
	@$(BIN)/python -m torchrl_gtp.data.point_maze $(MAZE)
	@echo "== Training and evaluation ($(DEMO_DIR)) =="
	@$(if $(findstring resume=,$(DEMO_FLAGS)),,rm -rf $(DEMO_DIR))
	@$(BIN)/python recipes/gtp/train.py dataset=gtp/pointmaze/$(MAZE)-v0 compare_bc=true \
		hydra.run.dir=$(DEMO_DIR) $(DEMO_FLAGS)

test: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest $(TEST_FLAGS)

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

format: $(VENV)/.test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) $(DEMO_DIR) .mypy_cache .pytest_cache .ruff_cache
	find recipes tests torchrl_gtp -name __pycache__ -type d -exec rm -rf {} +
