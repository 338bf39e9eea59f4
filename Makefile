# Every target installs what it needs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: install demo test lint format check audit faults stack bench peers clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,server]'
	touch $(INSTALLED)

demo: $(INSTALLED)  ## the main job, from nothing: train, probe, ablate, publish, report
	$(BIN)/mneme run quickstart

test: $(INSTALLED)  ## the tests
	$(BIN)/python -m pytest -n auto --dist loadfile

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

audit: $(INSTALLED)  ## the installed packages against constraints.txt, each other and their licences; offline
	$(BIN)/python -m pip check
	$(BIN)/python -m tests.licence_table --audit

faults: $(INSTALLED)  ## kills, full disks, damaged files, the server stack: the long forms; FAULTS_SEED=7 draws others
	$(BIN)/python -m pytest -s --runslow tests/faults

stack: $(INSTALLED)  ## the servers of docker-compose.yml started natively: schedules, downtime, restarts, a power cut
	$(BIN)/python -m pytest -s --runslow tests/faults/test_stack.py

bench: $(INSTALLED) $(VENV)/peers/.installed  ## speed, as ratios in one run
	$(BIN)/python -m benchmarks

peers: $(VENV)/peers/.installed  ## the tools that the benchmarks and the agreement tests compare with

$(VENV)/peers/.installed: $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/pip install --quiet 'transformer-lens>=4.3,<4.4' torch==2.13.0
	touch $@

clean:
	rm -rf $(VENV) .mneme *.egg-info .mypy_cache .ruff_cache .pytest_cache
