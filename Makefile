# Every target installs what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test lint format check bench clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,server]'
	touch $(INSTALLED)

demo: $(INSTALLED)  ## the main job, from nothing: train, probe, ablate, publish, report
	$(BIN)/mneme run quickstart

test: $(INSTALLED)  ## the tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## format, lint, types, import contracts, SQL
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint --disable-progress-bar storage/sql

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/sqlfluff fix --disable-progress-bar storage/sql

check: lint test  ## the only gate

bench: $(INSTALLED)  ## speed, as ratios in one run
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mneme *.egg-info .mypy_cache .ruff_cache .pytest_cache
