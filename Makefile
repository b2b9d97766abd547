# Every target sets up what it needs. PYTHON is the interpreter the environment is made with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo up test test-browser check format lock chaos bench clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Darkroom needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . -e ./client
	@touch $@

demo: setup
	@$(BIN)/python -m infra.local.demo

up: setup
	@$(BIN)/python -m infra.local.up

test: setup
	@$(BIN)/python -m pytest

# The contact sheet in a real browser: Debian's Chromium, installed here where that is allowed.
CHROMIUM ?= /usr/bin/chromium

test-browser: setup
	@test -x "$(CHROMIUM)" || ! test "$$(id -u)" = 0 || ! command -v apt-get >/dev/null \
	  || { echo "installing chromium ..."; apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null; }
	@test -x "$(CHROMIUM)" || { echo "The browser tests need Chromium: apt-get install chromium, as root (or name yours: make test-browser CHROMIUM=...)" >&2; exit 1; }
	@CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest tests/browser --numprocesses=0

# JOBS, SEED and SCENARIO (one or more, with commas) choose what is run: docs/reliability.md.
chaos: setup
	@$(BIN)/python -m tests.chaos.main --jobs $(or $(JOBS),300) --seed $(or $(SEED),1) --scenario "$(SCENARIO)"

# Each also runs alone: .venv/bin/python -m bench.overnight --help
bench: setup
	@$(BIN)/python -m bench

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m infra.check_lock
	@$(BIN)/python -m infra.diagrams --check

format: setup
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

# Newest versions inside the ranges of pyproject.toml, for every platform, without any registry's address. What the
# service and its build need by themselves (infra/Dockerfile) is a part of the same versions.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header

lock: setup
	@$(LOCK) --upgrade --all-extras -o requirements.lock pyproject.toml
	@$(LOCK) --upgrade --constraints requirements.lock -o infra/requirements-service.lock pyproject.toml
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(LOCK) --upgrade --constraints requirements.lock -o infra/requirements-build.lock -

clean:
	rm -rf .venv .darkroom out
