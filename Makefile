PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two at a time, in the order of the files: many of the tests wait for servers.
PYTEST := $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test test-all check lint docs bench clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.demo  ## two portraits, degraded, restored, scored, reported
	$(BIN)/bfr demo --out demo

test: $(VENV)/.test  ## the whole test suite: no GPU, no network
	$(PYTEST)

test-all: $(VENV)/.test  ## and long faults, schedules, and what needs a server: S3 (Ceph), PostgreSQL
	$(PYTEST) -m ""

check: lint docs test  ## what CI runs

docs: $(VENV)/.docs  ## the site of docs/ in build/site, with the reference: no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test  ## the benchmarks that need no data, in less than an hour, on one page: benchmarks/results/bench.md
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf $(VENV) demo build dist

# The stamps say what is installed: a second `make` installs nothing.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --editable '.[offline]'
	touch $@

$(VENV)/.test: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --editable '.[offline,test]'
	touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --editable '.[offline,docs]'
	touch $@ $(VENV)/.demo
