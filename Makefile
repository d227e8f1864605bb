VENV  := .venv
STAMP := $(VENV)/.stamp
BIN   := $(VENV)/bin

# Most tests wait for processes and disks: twice as many at a time as there are processors.
JOBS  := $(shell echo $$((2 * $$(nproc))))

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup check test soak damage planted demo bench-store install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv with the project and all its tools, exactly as locked

check: $(STAMP) ## lint, formatting and types
	@echo "== ruff check";  $(BIN)/ruff check --quiet .
	@echo "== ruff format"; $(BIN)/ruff format --check --quiet . \
		|| { echo "To format these files: $(BIN)/ruff format ."; exit 1; }
	@echo "== mypy";        $(BIN)/mypy

test: check ## check, then all tests
	@echo "== pytest";      $(BIN)/pytest -n $(JOBS) --dist worksteal

soak: $(STAMP) ## every campaign at full length, at most an hour; SOAK=quick for a little of everything
	@$(BIN)/python -m tests.crash.soak $(if $(filter quick,$(SOAK)),--quick)

planted: $(STAMP) ## plant each known kind of bug in a copy of the daemon, and see that it is caught
	@$(BIN)/python -m tests.crash.planted

damage: $(STAMP) ## damage a base at PLACES=5000 places; SEED=1
	@$(BIN)/python -m tests.offline.damage --places $(or $(PLACES),5000) --seed $(or $(SEED),1)

demo: $(STAMP) ## show it at work: a daemon, eight agents, everything read back
	@$(BIN)/python tests/demo/demo.py

bench-store: $(STAMP) ## measure how fast events are stored
	@$(BIN)/python tests/bench/store_bench.py

install: ## put it in place for systemd: PREFIX=/usr/local DESTDIR= (deploy/README.md)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' PYTHON='$(PYTHON)' deploy/install.sh

uninstall: ## take away what install has put there; what is stored stays
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' deploy/uninstall.sh

clean: ## remove .venv, caches and built packages
	@rm -rf $(VENV) demo-run dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find daemon client tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Another interpreter: make setup PYTHON=python3.13
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

$(STAMP): pyproject.toml requirements-dev.lock
	@py=; for p in $(PYTHONS); do \
		if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then py=$$p; break; fi; \
	done; \
	if [ -z "$$py" ]; then \
		echo "Python 3.11 or newer is needed. Tried: $(PYTHONS); python3 here is: $$(python3 -V 2>&1)" >&2; \
		exit 1; \
	fi; \
	if ! $$py -c 'import ensurepip, venv' 2>/dev/null; then \
		package=$$(basename $$py)-venv; \
		if ! command -v apt-get >/dev/null; then \
			echo "$$py can't make a virtual environment: install its 'venv' and 'ensurepip' modules." >&2; \
			exit 1; \
		elif [ "$$(id -u)" != 0 ]; then \
			echo "$$py can't make a virtual environment. Run this, then try again:" >&2; \
			echo "  sudo apt-get update && sudo apt-get install $$package" >&2; \
			exit 1; \
		fi; \
		echo "== installing $$package"; \
		apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$package >/dev/null \
			|| exit 1; \
	fi; \
	echo "== making $(VENV) with $$($$py -V)"; \
	$$py -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
