# Two commands do all on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install run serve test check format soak bench evidence tiny lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo "  PORT=$(PORT) and PYTHON=$(PYTHON) can be set, as in: PORT=8001 make run"

install: $(INSTALLED) ## the virtual environment in .venv, with the locked versions

$(INSTALLED): pyproject.toml clients/python/pyproject.toml requirements.lock setup.py models/attention.cpp
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dsr-serve needs Python 3.11 or newer: PYTHON=python3.11 make ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
		--editable '.[dev]' --editable './clients/python[explain]'
	@touch $@

run: $(INSTALLED) ## install, serve, ask the sample question, go on serving until Ctrl-C
	@$(BIN)/python -m serve.local --port $(PORT) --ask

serve: $(INSTALLED) ## the same without the question
	@$(BIN)/python -m serve.local --port $(PORT)

test: $(INSTALLED) ## every test that needs no GPU, no network and no weights
	$(BIN)/python -m pytest

check: $(INSTALLED) ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(INSTALLED) ## an hour and more: chaos, overload, endurance, 10,000 hostile files
	$(BIN)/python -m pytest -s -m 'soak or fuzz'

bench: $(INSTALLED) ## measurements, one JSON object a line
	$(BIN)/python -m tests.bench

evidence: $(INSTALLED) ## measure again every figure that a README states: hours; ONLY='parity bench' takes less
	$(BIN)/python -m tests.evidence $(if $(ONLY),--only $(ONLY)) $(OPTIONS)

tiny: $(INSTALLED) ## train the embedded checkpoint models/tiny again: hours on two cores
	for run in tiny-pi3 tiny-read tiny-look tiny; do $(BIN)/python -m training.run $$run || exit 1; done
	rm -rf models/tiny && cp -r runs/tiny/checkpoint models/tiny

lock: $(INSTALLED) ## write the installed versions to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean: ## remove what the other targets made
	rm -rf $(VENV) .dsr build *.egg-info models/*.so .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
