# A command that fails in the midst of a line or a pipe fails its target.
SHELL := bash
.SHELLFLAGS := -e -o pipefail -c

VENV  := .venv
STAMP := $(VENV)/.stamp
BIN   := $(VENV)/bin

# Most tests wait for processes and disks: three times as many at a time as there are processors.
JOBS  := $(shell echo $$((3 * $$(nproc))))

TS    := client/typescript
PAGE  := client/inspector
FUZZ  := build/fuzz
BUILT := client/python/perstack_storage/_inspect/page/index.html
NODE  := command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null
NODE_WANTED := it needs node 20 or newer, and npm

# The tests start thousands of interpreters: each would compile the daemon for itself.
unexport PYTHONDONTWRITEBYTECODE

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' client/python/perstack_storage/_version.py)

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
IN_PARTS = $(addprefix --rounds ,$(ROUNDS)) $(addprefix --seed ,$(SEED)) $(addprefix --minutes ,$(MINUTES)) $(addprefix --results ,$(RESULTS))
.PHONY: year year-figures soak-replicated help setup needs docs check check-python check-node format coverage wheel sdist npm deb image man release test test-release test-fast test-together test-alone typescript inspector test-typescript soak damage packed-flips cursor-kills mirror-kills planted takeover inspect-streams inspect-fuzz inspect-figures demo bench bench-quick bench-beyond bench-guard install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## make .venv with the project and all its tools, exactly as locked

check: ## lint, formatting, types, and which package may import which
	@$(MAKE) -j2 -k --output-sync=target check-python check-node

check-python: $(STAMP)
	@echo "== ruff check";  $(BIN)/ruff check --quiet .
	@echo "== ruff format"; $(BIN)/ruff format --check --quiet . \
		|| { echo "To format these files: $(BIN)/ruff format ."; exit 1; }
	@echo "== mypy";        $(BIN)/mypy
	@echo "== layers";      $(BIN)/python -m tests.layers

check-node:
	@if $(NODE); then $(MAKE) -s $(TS)/node_modules/.checked $(PAGE)/node_modules/.checked; else echo "== tsc: left out, $(NODE_WANTED)"; test -z "$(CI)"; fi

format: $(STAMP) ## format Python and sort its imports
	@$(BIN)/ruff check --select I --fix --quiet . ; $(BIN)/ruff format --quiet .

docs: $(STAMP) ## write the tables of daemon/docs that come from the code
	@$(BIN)/python -m tests.docs.limits

needs: ## what the tests need of the machine: installed, or named
	@tests/needs.sh

test: ## check, then all tests; a stage that fails does not hide the next ones
	@tests/stages.sh needs check typescript inspector test-together test-alone test-typescript

test-fast: check ## types, unit tests, vectors and docs, in about a minute
	@$(BIN)/pytest -q -n $(shell nproc) -m "not alone" tests/unit tests/vectors tests/docs $(PYTEST)

test-together: $(STAMP) ## the tests that may run side by side, in random order
	@echo "== pytest"; $(BIN)/pytest -n $(JOBS) --dist worksteal -m "not alone" $(PYTEST)

test-alone: $(STAMP) ## the tests that need the machine to themselves
	@echo "== pytest, one by one"; $(BIN)/pytest -m alone $(PYTEST)

coverage: $(STAMP) ## lines and branches that unit, vector and integration tests run, of all processes
	@mkdir -p .coverage; rm -f .coverage/data*
	@$(BIN)/coverage run -m pytest -q -m "not alone" tests/unit tests/vectors tests/integration $(PYTEST)
	@$(BIN)/coverage combine -q; $(BIN)/coverage report

wheel: $(STAMP) inspector ## build the Python package into dist/
	@$(BIN)/python -m hatchling build -t wheel

sdist: $(STAMP) inspector ## build its source archive into dist/
	@$(BIN)/python -m hatchling build -t sdist

npm: $(TS)/dist/index.js ## pack the TypeScript client into dist/
	@mkdir -p dist; cd $(TS) && npm pack --silent --ignore-scripts --pack-destination ../../dist | sed 's|^|dist/|'

deb: sdist ## build a Debian package for this distribution and Python into dist/
	@deploy/deb.sh dist/perstack_stored-$(VERSION).tar.gz dist

image: wheel ## build a container image into dist/, as root and without Docker; FORMAT=oci or docker
	@deploy/image.sh dist/perstack_stored-$(VERSION)-py3-none-any.whl dist $(BIN)/python

man: $(STAMP) ## write the man pages of both commands into dist/man/, from their help
	@$(BIN)/python deploy/man.py dist/man

release: $(STAMP) ## check the versions, and build all of it into dist/ with checksums; as root, on Debian
	@$(BIN)/python deploy/release.py check
	@tests/needs.sh release
	@rm -rf dist
	@$(MAKE) wheel sdist npm deb image
	@$(BIN)/python deploy/release.py sums dist

test-release: $(STAMP) ## install what make release has built in bare systems, and use it; as root, on Debian
	@tests/needs.sh release; cd dist; sha256sum --quiet --check SHA256SUMS; rm -f ../build/release-test/figures
	@$(BIN)/pytest -q tests/packaging/try_*.py $(PYTEST) || failed=$$?; cat build/release-test/figures; exit $${failed:-0}

typescript: ## build the TypeScript client, where Node is
	@if $(NODE); then $(MAKE) $(TS)/dist/index.js; else echo "== typescript: left out, $(NODE_WANTED)"; test -z "$(CI)"; fi

inspector: ## build the page of the inspector into the Python client, where Node is
	@if $(NODE); then $(MAKE) $(BUILT); else echo "== inspector: left out, $(NODE_WANTED)"; test -z "$(CI)"; fi

test-typescript: $(STAMP) typescript ## its tests, on a real daemon
	@if $(NODE); then echo "== node --test"; cd $(TS) && node --test --test-concurrency=2 test/*.test.mjs; fi

$(PAGE)/node_modules/.checked: $(PAGE)/node_modules/.stamp $(shell find $(PAGE)/src -name "*.ts*") $(wildcard $(PAGE)/*.json)
	@echo "== tsc, inspector"; cd $(PAGE) && npm run --silent check && touch node_modules/.checked

$(BUILT): $(PAGE)/node_modules/.checked $(wildcard $(PAGE)/src/* $(PAGE)/public/*) $(PAGE)/index.html $(PAGE)/vite.config.js
	@echo "== vite, inspector"; cd $(PAGE) && npm run --silent build -- --logLevel warn && touch ../../$(BUILT)

%/node_modules/.stamp: %/package-lock.json
	@cd $* && npm ci --silent --no-audit --no-fund && touch node_modules/.stamp

$(TS)/node_modules/.checked: $(TS)/node_modules/.stamp $(shell find $(TS)/src $(TS)/test -name "*.ts") $(wildcard $(TS)/*.json)
	@echo "== tsc"; cd $(TS) && npm run --silent check && touch node_modules/.checked

$(TS)/dist/index.js: $(TS)/node_modules/.checked
	@echo "== tsc, build"; cd $(TS) && npm run --silent build

soak: $(STAMP) ## every campaign at full length, at most an hour; SOAK=quick for a little of everything; FIGURES=soak.json
	@$(BIN)/python -m tests.crash.soak $(if $(filter quick,$(SOAK)),--quick) $(if $(FIGURES),--figures $(FIGURES))

takeover: $(STAMP) ## two processes resume one job, ROUNDS=10000 times, through kills; RESULTS=FILE goes on; MINUTES=50
	@$(BIN)/python -m tests.crash.takeover $(IN_PARTS)

planted: $(STAMP) ## plant each known kind of bug in a copy of the daemon, and see that it is caught; RESULTS=FILE goes on
	@$(BIN)/python -m tests.mutation $(if $(RESULTS),--results $(RESULTS))

cursor-kills: $(STAMP) ## kill daemon and named subscriber ROUNDS=1000 times; RESULTS=FILE goes on; MINUTES=50
	@$(BIN)/python -m tests.crash.cursor_kills $(IN_PARTS)

year-figures: $(STAMP) ## p99 of stores while packing and deleting, bytes of jobs on disk; WHAT="pack delete disk"
	@for what in $(or $(WHAT),pack delete disk); do $(BIN)/python -m tests.year.figures $$what || failed=1; done; test -z "$$failed"

year: $(STAMP) ## a year of 500 jobs a day at 1:100, with retention; disk, memory and starts are sampled
	@$(BIN)/python -m tests.year $(if $(OUT),--out $(OUT))

soak-replicated: $(STAMP) ## kills, pauses, cuts, flipped bits, clocks of three daemons and servers of a log, in an hour; SHARE=1
	@$(BIN)/python -m tests.replication.campaign --share $(or $(SHARE),1) $(addprefix --seconds ,$(SECONDS))

mirror-kills: $(STAMP) ## kill daemon, mirror, its connections, and SeaweedFS where it is, KILLS=50 times; SEED=1 MINUTES=15
	@$(BIN)/python -m tests.mirror.kills $(or $(KILLS),50) $(or $(SEED),1) $(or $(MINUTES),15)

erase-kills: $(STAMP) ## KILLS=1000 and CUTS=100 (as root) while records are deleted, packed and erased; MINUTES=50, SEED=1
	@$(BIN)/python -m tests.crash.erasing --kills $(or $(KILLS),1000) --cuts $(or $(CUTS),100) --minutes $(or $(MINUTES),50) --seed $(or $(SEED),1)

packed-flips: $(STAMP) ## flip bits at PLACES=10000 places of packed segments; SEED=7
	@$(BIN)/python -m tests.offline.packed_flips --places $(or $(PLACES),10000) --seed $(or $(SEED),7)

damage: $(STAMP) ## damage a base at PLACES=5000 places; SEED=1
	@$(BIN)/python -m tests.offline.damage --places $(or $(PLACES),5000) --seed $(or $(SEED),1)

inspect-streams: $(STAMP) ## 500 clients of the inspector's streams come and go; CLIENTS=500 SECONDS=30
	@$(BIN)/python -m tests.inspector.streams_load --clients $(or $(CLIENTS),500) --seconds $(or $(SECONDS),30)

inspect-fuzz: $(STAMP) $(FUZZ)/.stamp ## REQUESTS=10000 to the inspector's gateway, made from its OpenAPI document by schemathesis; MINUTES=30
	@$(BIN)/python -m tests.inspector.fuzz $(FUZZ)/bin/schemathesis --requests $(or $(REQUESTS),10000) --minutes $(or $(MINUTES),30)

$(FUZZ)/.stamp: tests/inspector/fuzz-requirements.lock
	@$(BIN)/python -m venv --clear $(FUZZ)
	@$(FUZZ)/bin/python -m pip install -qq --no-compile --disable-pip-version-check --require-hashes -r $<
	@touch $@

inspect-figures: $(STAMP) inspector ## the inspector's page with 100,000 jobs, 50,000 events, and live; in Chromium
	@$(BIN)/python -m tests.inspector.figures

demo: $(STAMP) ## show it at work: a daemon, eight agents, everything read back
	@$(BIN)/python tests/demo/demo.py

bench: $(STAMP) typescript ## against direct files, SQLite, Redis, PostgreSQL, NATS and the machine's limits; BENCH='--help'
	@$(BIN)/python -m tests.bench.main $(BENCH)

bench-quick: $(STAMP) typescript ## the same in about two minutes
	@$(BIN)/python -m tests.bench.main --quick --only abe --minutes 1.5 --out bench-run $(BENCH)

bench-beyond: $(STAMP) ## the replicated journal and the mirror, in figures; 15 minutes; BENCH='--quick', '--help'
	@$(BIN)/python -m tests.bench.beyond $(BENCH)

bench-guard: $(STAMP) ## fail if a ratio is worse than the committed one, beyond the noise; some minutes
	@$(BIN)/python -m tests.bench.guard $(GUARD)

install: ## put it in place for systemd: PREFIX=/usr/local DESTDIR= (deploy/README.md)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' PYTHON='$(PYTHON)' deploy/install.sh

uninstall: ## take away what install has put there; what is stored stays
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' deploy/uninstall.sh

clean: ## remove .venv, caches and built packages
	@rm -rf $(TS)/node_modules $(TS)/dist $(PAGE)/node_modules $(dir $(BUILT)) $(VENV) demo-run dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
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
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
