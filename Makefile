# Every path is relative, so that a checkout may lie in a folder whose name has spaces.
PYTHON ?= python3
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

.PHONY: help run test lint bench
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

run: $(VENV)/.installed ## set up, then run the default experiment; options: make run ARGS="scheduler=euler steps=20", ARGS='model=emoji prompt="red heart"'
	@$(PY) -m diffexp $(ARGS)

test: $(VENV)/.installed-dev ## set up, then run the test suite; options: make test ARGS="-k plan"
	@$(PY) -m pytest -q -n auto --maxprocesses 8 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev ## run ruff, pyright and the import contract
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright
	@$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.installed-dev ## time schedulers, sampling and sweeps against diffusers
	@$(PY) -m tests.benchmarks $(ARGS)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffexp needs Python 3.11 or newer: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)

# The stamps make the second time immediate; a changed requirement installs again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into $(VENV); the first time this takes a few minutes ..."
	@$(PIP) install --quiet -c constraints.txt -e '.[pipelines]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(PY)
	@echo "Installing into $(VENV); the first time this takes a few minutes ..."
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed
