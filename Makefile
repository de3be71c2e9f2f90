# Everything Flicker needs, from a machine with Python, git and make.
# PYTHON=python3.12 picks another interpreter (3.10 to 3.12), and
# BENCH='--events 100000 --only backfill' what is measured.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup test unit lint types demo bench bench-quick clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## create .venv with .venv/bin/flicker

$(VENV)/.ready: pyproject.toml constraints.txt
	@python=$$(./tools/find-python $(PYTHON)) && $$python -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: setup ## lint, check types and run all tests: what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 4 --dist worksteal

unit: setup ## run the tests that start no process
	$(BIN)/pytest -m 'not process'

lint: setup ## reformat, and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## check types
	$(BIN)/mypy

demo: setup ## watch Flicker ship, die and resume
	@$(BIN)/flicker demo

bench: $(VENV)/.bench ## measure Flicker beside other ways to do the same work: 25 minutes at most
	$(BIN)/python -m bench $(BENCH)

bench-quick: $(VENV)/.bench ## check the three ratios that matter most: half a minute
	$(BIN)/python -m bench --quick

$(VENV)/.bench: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

clean: ## remove what the other targets made
	rm -rf $(VENV) .bench .hypothesis .mypy_cache .pytest_cache .ruff_cache build *.egg-info
