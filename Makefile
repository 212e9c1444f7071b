# Everything a developer runs. Needs Python >= 3.11 and a package index, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Neighbours go to one worker, so that what a module shares is made once; who is done takes from others.
TESTS ?= -n 2 --dist worksteal
SCALE ?= 1
# Its pin of MLX has no wheel for Linux or Python 3.13; it runs on the MLX of the extra `models`.
DIFFUSIONKIT = diffusionkit==0.5.2
export MLX_DISABLE_COMPILE = 1
# Set (as in images of Python) every worker rewrites the asserts of 350 files for itself: 8 s each.
export PYTHONDONTWRITEBYTECODE =
DEMO ?= demo
CANARY = .venv-canary
LOWEST = .venv-lowest
COMING = numpy dask distributed zarr xarray

.PHONY: help demo demo-ingest test docs lint types unit test-all test-lowest canary campaign tables bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, found " + sys.version'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,models,docs]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DIFFUSIONKIT)
	@touch $@

demo: $(BIN)/python ## from the reference model to configs and figures, command by command; leaves demo/
	@$(BIN)/python -m taqstore.pipelines.demo live $(DEMO)

demo-ingest: $(BIN)/python ## the same from a run folder of the old scripts; leaves demo-ingest/
	@$(BIN)/python -m taqstore.pipelines.demo ingest $(DEMO)-ingest

test: lint types unit ## ruff, codespell, mypy and pytest

docs: $(BIN)/python ## the site, from docs/ and the code, warnings as errors; leaves docs/_build/html
	@rm -rf docs/_build
	@$(BIN)/python -m sphinx -b html -n -W --keep-going -q -c docs . docs/_build/html
	@echo "docs/_build/html/index.html"

lint: $(BIN)/python ## ruff and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(BIN)/python ## mypy
	$(BIN)/mypy

unit: $(BIN)/python ## pytest
	$(BIN)/python -m pytest $(TESTS)

test-all: ## pytest on every interpreter found (3.11, 3.12, 3.13)
	@for version in 3.11 3.12 3.13; do \
	  if python$$version --version >/dev/null 2>&1; then \
	    $(MAKE) --no-print-directory unit PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	  else echo "python$$version: not found, skipped"; fi; done

# Plain pip in place of a resolver of lowest versions; what those bring themselves is left to it.
$(LOWEST)/bin/python: pyproject.toml tests/support/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check packaging
	$(LOWEST)/bin/python tests/support/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c $(LOWEST)/constraints.txt -e '.[test,models,peers]'
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(DIFFUSIONKIT)
	@touch $@

test-lowest: $(LOWEST)/bin/python ## pytest on the lowest versions that pyproject.toml allows (PYTHON=python3.11)
	@$(LOWEST)/bin/python tests/support/lowest.py --installed
	$(LOWEST)/bin/python -m pytest $(TESTS)

canary: ## pytest against pre-releases of what the store stands on; tells what is coming, judges nothing
	@$(MAKE) --no-print-directory VENV=$(CANARY) $(CANARY)/bin/python
	@for name in $(COMING); do \
	  $(CANARY)/bin/python -m pip install --quiet --disable-pip-version-check --pre --upgrade $$name \
	  || echo "$$name: could not be upgraded, what was there is tried"; done
	@$(CANARY)/bin/python tests/support/coming.py $(COMING)
	@$(CANARY)/bin/python -m pytest $(TESTS) && echo "canary: passed with the versions above" \
	  || echo "canary: FAILED with the versions above; a release like them will break the suite"

campaign: $(BIN)/python ## try everything that a store promises: damage, kills, power cuts, crowds; hours (MOST=80: a part)
	PYTHONPATH=.:tests $(BIN)/python -m campaign $(if $(MOST),--most $(MOST)) $(PARTS)

tables: $(BIN)/python ## write the tables of docs/ anew from the code
	PYTHONPATH=tests $(BIN)/python -m support.docs_pages

bench: $(BIN)/python ## measure against npz folders, h5py and tensorstore, then how time and memory grow
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks --scale $(SCALE)

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-3.* $(CANARY) $(LOWEST) $(DEMO) $(DEMO)-ingest bench-work docs/_build docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis
