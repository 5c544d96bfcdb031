# make train [ARGS="trainer.max_epochs=1 seed=3"]   installs, trains, tests and reports
# make test                                         installs, lints, checks types and runs the tests
# make test-slow                                    the tests that take many minutes
# make test-newest [PYTHON=python3.13]              the tests with the newest torch, so without XLA
# make faults                                       kills a training 50 times, and compares what comes out
# make search                                       searches three times, is killed, and is compared with chance
# make fuzz [SEED=1]                                100,000 inputs for each fast reader, 10,000 for the others
# make coverage                                     the tests, and which lines and branches of digits/ they reach
# make audit                                        known holes in what constraints.txt names, and all licences
# make lock [ARGS=--upgrade]                        writes constraints.txt anew, with all that setup.cfg requires
# make weights                                      trains what the package carries anew, into digits/weights/

PYTHON ?= python3
VENV   ?= .venv
NEWEST ?= .venv-newest
BIN    := $(VENV)/bin
ARGS   ?=
SEED   ?= 0
# a file's tests share what they set up, so one process takes them all
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: help train test test-slow test-newest faults search fuzz coverage audit lock weights clean

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

train: $(VENV)/.installed
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/pytest $(PARALLEL) $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow $(ARGS)

test-newest: $(NEWEST)/.installed-newest
	$(NEWEST)/bin/pytest $(PARALLEL) $(ARGS)

faults: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/faults.py $(ARGS)

search: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/search.py $(ARGS)

fuzz: $(VENV)/.installed-dev
	@echo "seed $(SEED)"
	DIGITS_FUZZ=thorough $(BIN)/pytest tests/fuzz --numprocesses auto --timeout 7200 --hypothesis-seed=$(SEED) $(ARGS)

coverage: $(VENV)/.installed-upkeep
	$(BIN)/pytest $(PARALLEL) --cov --cov-config=setup.cfg --cov-report=term-missing --cov-fail-under=92 $(ARGS)

audit: $(VENV)/.installed-upkeep
	$(BIN)/python benchmarks/audit.py

lock: $(VENV)/.installed-upkeep
	$(BIN)/uv pip compile $(LOCK) $(ARGS)

weights: $(VENV)/.installed
	$(BIN)/python train.py experiment=best seed=0 data.offline_fallback=false resume=false hydra.run.dir=runs/weights
	$(BIN)/digits export digits/weights --model runs/weights --half

clean:
	rm -rf $(VENV) $(NEWEST) *.egg-info .*_cache

%/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DeepDigits needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $*

# The stamps are newer than the lists of requirements unless these have changed: nothing is installed twice.
LISTS := requirements.txt setup.cfg pyproject.toml constraints.txt
# The versions that were tested together, of all that is required.
INSTALL := pip install --quiet --constraint constraints.txt
# no index is named in it, as each has his own
LOCK := setup.cfg --extra dev --extra tpu-check --extra upkeep --universal --python-version 3.11 \
	--output-file constraints.txt --no-emit-index-url --annotation-style line --quiet --custom-compile-command 'make lock'

$(VENV)/.installed: $(LISTS) | $(BIN)/python
	$(BIN)/$(INSTALL) --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/$(INSTALL) --editable '.[dev,tpu-check]'
	@touch $@

$(VENV)/.installed-upkeep: $(VENV)/.installed-dev
	$(BIN)/$(INSTALL) --editable '.[upkeep]'
	@touch $@

$(NEWEST)/.installed-newest: $(LISTS) | $(NEWEST)/bin/python
	$(NEWEST)/bin/pip install --quiet --editable '.[dev]'
	@touch $@
