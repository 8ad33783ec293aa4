# `make demo` and `make test` do all set-up themselves: a virtual environment in .venv, on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Choose another torch build (CUDA, ROCm) by installing it into the environment first, or with TORCH=...
TORCH ?= torch

.PHONY: demo test test-all optional textattack docs site lint install clean help

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/offramp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "offramp needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV): a few minutes on first use"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --progress-bar on '$(TORCH)'
	$(BIN)/python -m pip install --progress-bar on -e '.[export,serve,dev]'
	@touch $@

install: $(BIN)/offramp  ## make the virtual environment

demo: install  ## train, compare and attack on real data; results in demo/
	$(BIN)/offramp demo

test: install  ## all quick tests, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# The extras that only `make test-all` needs: Ray with Ray Serve, the site's builder, and TextAttack, which pins old versions of what it needs.
optional: install
	$(BIN)/python -m pip install --progress-bar on -e '.[textattack,ray,serve-ray,docs]'
	$(BIN)/python -m pip install --progress-bar on --no-deps textattack==0.3.11

# Half an hour on two cores. Tests of GLUE's files run where OFFRAMP_GLUE names their folder.
test-all: optional  ## every test: also the slow ones, and those of TextAttack, Ray and GLUE
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow or not slow'

textattack: optional  ## the bridge to TextAttack, tested against the library
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integrations/test_textattack.py tests/docs/test_textattack.py

docs: install  ## copy the tables of the reports into docs
	$(BIN)/cog -r docs/papers.md docs/performance.md docs/scoreboard.md docs/should-i-exit.md docs/operating.md docs/concepts/*.md

site: install  ## build the documentation site in build/site
	$(BIN)/python -c 'import zensical, mkdocstrings' 2>/dev/null || $(BIN)/python -m pip install --progress-bar on -e '.[docs]'
	$(BIN)/python docs/build_site.py

lint: install  ## style and types
	$(BIN)/ruff check src tests docs examples
	$(BIN)/ruff format --check src tests docs examples
	$(BIN)/mypy

clean:  ## remove the environment and what the demo wrote
	rm -rf $(VENV) demo
