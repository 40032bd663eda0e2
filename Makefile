# Each target does its own set-up: Python 3.11 or later and make are all that a machine needs.
PYTHON ?= $(shell for it in python3.11 python3.12 python3.13 python3; do command -v $$it && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TREES := clients server gateway_http tests

# What is compiled is kept (.gitignore): else each server and each job of the tests would compile it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo up test soak bench check unit protos audit generate format lock clean

help:  ## What there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/server  ## See the whole thing work: a real job, its log, artifacts, receipt, a cancel
	$(BIN)/jobledger demo

up: .venv/server  ## Run the server on this machine
	$(BIN)/jobledger up

test: check protos unit  ## Everything that a change must pass

check: .venv/dev  ## Style, types, layers
	$(BIN)/ruff format --check --quiet $(TREES)
	$(BIN)/ruff check --quiet $(TREES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

protos: .venv/dev  ## Lint of the .proto files, compatibility with the last release, freshness of the stubs
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/python clients/generate.py --image .venv/image.binpb
	$(BIN)/buf lint .venv/image.binpb
	$(BIN)/buf breaking .venv/image.binpb --against protos/released.binpb
	$(BIN)/python clients/generate.py --check

unit: .venv/dev  ## The tests alone; ARGS goes to pytest
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

soak: .venv/dev  ## The fault tests at length: the server is killed SOAK_KILLS times and more, under SOAK_JOBS and more
	JOBLEDGER_KILLS=$(SOAK_KILLS) JOBLEDGER_KILL_JOBS=$(SOAK_JOBS) JOBLEDGER_CUT_SECONDS=60 JOBLEDGER_ABUSE=1 $(BIN)/python -m pytest -s tests/faults

SOAK_KILLS := 300
SOAK_JOBS := 1000

bench: .venv/dev  ## Measure on this machine: tests/benchmarks; ARGS chooses, --list says which there are
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

audit: .venv/audit/ready  ## Known vulnerabilities of what is locked, where they can be looked up; says what could not be
	$(BIN)/python tests/audit.py .venv/audit/bin/pip-audit requirements.lock requirements-dev.lock requirements-audit.lock

generate: .venv/dev  ## Write the stubs anew
	$(BIN)/buf format --write protos
	$(BIN)/python clients/generate.py
	$(BIN)/python -m jobledger_gateway.openapi_file clients/openapi.json

format: .venv/dev  ## Put the code in order
	$(BIN)/ruff check --fix --quiet $(TREES)
	$(BIN)/ruff format --quiet $(TREES)

lock: .venv/dev  ## Resolve the dependencies anew
	$(PIP) install uv
	$(BIN)/uv pip compile $(LOCKING) --group build -o requirements.lock
	$(BIN)/uv pip compile $(LOCKING) --group build --group dev -o requirements-dev.lock
	$(BIN)/uv pip compile --group pyproject.toml:audit $(LOCKED) -o requirements-audit.lock

LOCKED := --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --quiet
LOCKING := pyproject.toml --extra server $(LOCKED)

clean:  ## Remove what the other targets made
	rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/python:
	@test -n "$(PYTHON)" || { echo "Jobledger needs Python 3.11 or later: install it, or say PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Jobledger needs Python 3.11 or later; $(PYTHON) is older: say PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/server: .venv/python requirements.lock pyproject.toml
	@echo "Installing what the server needs into .venv ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/python requirements-dev.lock pyproject.toml
	@echo "Installing what the tests need into .venv ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/audit/ready: .venv/python requirements-audit.lock
	@echo "Installing what looks up vulnerabilities into .venv/audit ..."
	@$(BIN)/python -m venv .venv/audit
	@.venv/audit/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements-audit.lock
	@touch $@
