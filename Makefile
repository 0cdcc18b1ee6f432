# Every target creates the virtual environment of this checkout (.venv) if need be, installs what the target uses, once,
# and reuses it afterwards. Needed beforehand: make, and Python 3.11 or newer.
#
#   make test PYTHON=python3.12 VENV=.venv-py312     another Python, in an environment of its own
#   make test PYTEST_ARGS="-k fft"                   arguments for pytest
#   make experiments ARGS="--seed 1 --quick"         arguments for python -m experiments run

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV := .venv
PYTEST_ARGS ?=
ARGS ?=

# The first interpreter that runs, is new enough and can create environments. A version manager's shim may exist on PATH
# and yet fail, hence each one is tried.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python \
    $(sort $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.*/bin/python3))
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in $(CANDIDATES); do \
    if $$python -c '$(USABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: $(VENV)/.installed-test ## Run the suite, doctests and the examples of the documentation included
	$(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

.PHONY: experiments
experiments: $(VENV)/.installed-experiments ## Run the headline experiments and write results/index.html
	$(BIN)/python -m experiments run $(ARGS)

.PHONY: experiments-full
experiments-full: $(VENV)/.installed-experiments ## Run every experiment
	$(BIN)/python -m experiments run --all $(ARGS)

.PHONY: article
article: $(VENV)/.installed-experiments ## Renew the numbers and figures of the article in docs/ from full runs
	$(BIN)/python -m experiments article $(ARGS)

.PHONY: docs
docs: $(VENV)/.installed-docs ## Build the documentation in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html

.PHONY: lint
lint: $(VENV)/.installed-dev ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: format
format: $(VENV)/.installed-dev ## Format, and mend what can be mended automatically
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: types
types: $(VENV)/.installed-dev ## Check types
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: hooks
hooks: $(VENV)/.installed-dev ## Run lint and types before every commit
	$(BIN)/pre-commit install

.PHONY: clean
clean: ## Remove the virtual environments and everything generated
	rm -rf .venv* results* docs/_build dist .pytest_cache .ruff_cache .hypothesis
	find jaxconv experiments tests docs -name __pycache__ -type d -exec rm -rf {} +

# Stamps, so that a second run installs nothing. A changed dependency or pin installs again.
$(VENV)/.installed-%: pyproject.toml constraints.txt $(VENV)/.created
	@echo "Installing jaxconv[$*] in $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[$*]"
	@touch $@

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(USABLE)' || { echo "$(PYTHON) does not run, is older than 3.11, or lacks the modules venv and ensurepip; name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
