# Two targets do all of their own set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: quickstart test check faults bench results docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@touch $@

## A model trained, tested and writing, from text this machine already has.
quickstart: $(VENV)/.installed
	@$(BIN)/tianti run recipes/quickstart.yaml
	@echo 'What the model goes on with after "Return the":'
	@$(BIN)/tianti generate runs/quickstart --prompt "Return the" --max-tokens 60
	@echo 'For the command tianti in this shell: . $(VENV)/bin/activate'

## All tests.
test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n 2

## Style, types, floors, documents.
check: $(VENV)/.installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/check_docs.py

## The long form of the fault tests.
faults: $(VENV)/.installed-dev
	@TIANTI_FAULTS=10 TIANTI_LAYOUTS=all TIANTI_TRAIN_KILLS=500 TIANTI_DAMAGES=1000 TIANTI_DISK_FAULTS=50 \
		TIANTI_CORPUS_FAULTS=30 TIANTI_MUTATIONS=10000 $(BIN)/python -m pytest tests/faults tests/distributed

## docs/results.md from the worked recipes (3 minutes each; TIANTI_DATA names the data).
results: $(VENV)/.installed
	@$(BIN)/python benchmarks/results.py

## docs/benchmarks.md: speed and accuracy (half an hour with peers; TIANTI_PEERS_PYTHON names them).
bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/write_docs.py

## docs/settings.md and docs/quality-rules.md from the code.
docs: $(VENV)/.installed-dev
	@$(BIN)/python tests/check_docs.py --write

clean:
	rm -rf $(VENV) runs
