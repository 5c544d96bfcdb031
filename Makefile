# make train [ARGS="trainer.max_epochs=1 seed=3"]   installs, trains, tests and reports
# make test                                         installs, lints, checks types and runs the tests
# make test-slow                                    the tests that take many minutes
# make weights                                      trains what the package carries anew, into digits/weights/

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help train test test-slow weights clean

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

train: $(VENV)/.installed
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow $(ARGS)

weights: $(VENV)/.installed
	$(BIN)/python train.py experiment=best seed=0 data.offline_fallback=false hydra.run.dir=runs/weights
	$(BIN)/digits export digits/weights runs/weights --half

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache

# The stamps are newer than the lists of requirements unless these have changed: nothing is installed twice.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DeepDigits needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev,tpu-check]'
	@touch $@
