# Two commands set everything up: `make run` serves the demo, `make test` passes the tests.
# They need python3 (3.11 to 3.13) with venv, git and make; all else comes into $(VENV) and the
# user's cache. Besides, `make test` wants Debian's curl, rustc-web, cargo-web and rust-web-src (or
# EDGE_RUST_BIN, see docs/decisions/017-rust-guests.md), `make bench` its wrk and nginx-light.
#
#   PYTHON=python3.12   another interpreter; it gets a virtual environment of its own
#   ARGS="-k routing"   more arguments for pytest, the benchmark or the server

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
CONFIG ?= config/edge.yaml
ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test check format guests bench clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make run      serve the demo on http://127.0.0.1:8080 (CONFIG=file for another configuration)
run: $(VENV)/.run
	exec $(BIN)/edge-server --config $(CONFIG) $(ARGS)

## make test     build the guests and run every test (ARGS="-k name" for some)
test: guests
	$(BIN)/python -m pytest $(ARGS)

## make guests   build the guest programs with the real SDKs and compilers, once per content
guests: $(VENV)/.test
	$(BIN)/python -m tests.support.guests

## make check    format, lint, types, layers, links and sizes
check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_repository.py

## make format   rewrite the files the way `make check` wants them
format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

## make bench    measure this server beside its peers (needs wrk, nginx; ARGS="--rounds 1": quick)
bench: $(VENV)/.bench
	@command -v wrk >/dev/null || { echo "make bench needs wrk: apt-get install wrk" >&2; exit 1; }
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || \
	  { echo "make bench needs nginx: apt-get install nginx-light" >&2; exit 1; }
	$(BIN)/python -m tests.bench.run $(ARGS)
	$(BIN)/python -m tests.bench.proxy $(ARGS)
	$(BIN)/python -m tests.bench.micro --json build/micro.json
	$(BIN)/python -m tests.bench.micro_proxy

## make clean    remove the virtual environment and what the tools left behind
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
	find edge tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a level is installed again only when one of the files that decide it has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed: say make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r requirements/run.txt
	$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	$(PIP) install -r requirements/test.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.test
	$(PIP) install -r requirements/bench.txt
	@touch $@
