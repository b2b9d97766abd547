# Every target sets up what it needs. PYTHON is the interpreter the environment is made with (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo up test check format lock chaos bench clean

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Darkroom needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/python -m infra.local.demo

up: setup
	@$(BIN)/python -m infra.local.up

test: setup
	@$(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m infra.check_lock

format: setup
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

# Newest versions inside the ranges of pyproject.toml, for every platform, without any registry's address.
lock: setup
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-header -o requirements.lock pyproject.toml

clean:
	rm -rf .venv .darkroom out
