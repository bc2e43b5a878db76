# Everything one does here. `make` alone lists it.

CARGO ?= cargo
TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/crashmeter/tools
# Peers, data and figures of `make bench`: about 10 GB.
BENCH ?= $(dir $(TOOLS))bench
# Reports of a day; the goals speak of ten million.
ROWS ?= 10000000
STAGES ?= warm,cold,metrics,path,page,growth
# Plans of `make simulate`.
SEEDS ?= 1000
# How often each rig of `make faults` breaks the server, and which.
CYCLES ?= 20
RIGS ?= kills calls power full outage partition clock storm
# Of `make fuzz`: how long each target runs, and which.
SECONDS ?= 60
TARGET ?= all
# Known to pass with the rules in deny.toml; a newer one may read them differently.
CARGO_DENY_VERSION := 0.20.2

NPM ?= npm
WEB_SOURCES := $(shell find web/src web/scripts web/index.html web/package.json web/tsconfig.json web/vite.config.ts -type f -not -name '*.test.ts' 2>/dev/null)

.PHONY: help demo release web test test-web test-tools check bench perf-guard fuzz simulate faults plant guide-pictures

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: web ## build and run with made-up crash reports, until Ctrl-C
	$(CARGO) run --locked --profile test --package server --bin crashmeter -- serve --demo

release: web ## build the program for use: target/release/crashmeter
	$(CARGO) build --locked --release --package server --bin crashmeter

web: web/dist/.done ## build the web page (needs Node 20.19 or later)

web/node_modules/.done: web/package-lock.json
	$(NPM) ci --prefix web --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

web/dist/.done: web/node_modules/.done $(WEB_SOURCES)
	$(NPM) run --prefix web --silent build
	touch $@

test: web test-tools ## install what the tests need and run them all
	$(CARGO) test --locked --workspace --no-fail-fast
	$(MAKE) test-web

# The program that the tests above were built with, in a real browser.
test-web:
	$(NPM) run --prefix web --silent test
	CRASHMETER=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/crashmeter $(NPM) run --prefix web --silent e2e

# Pictures of the guide, taken by the browser suite.
GUIDE := start explore export-as-metric metric-export metric store-output report

guide-pictures: web ## take the pictures in docs/guide anew
	$(CARGO) build --locked
	CRASHMETER_PICTURES=$(CURDIR)/web/test-results/pictures CRASHMETER=$(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/crashmeter \
	  $(NPM) run --prefix web --silent e2e -- --grep 'accessible in light'
	mkdir -p docs/guide
	for name in $(GUIDE); do cp web/test-results/pictures/$$name-light.png docs/guide/$$name.png; done

test-tools: ## install real metric stores and SDKs for the tests
	scripts/install-test-tools

check: $(TOOLS)/bin/cargo-deny web ## format, lints, licences and sources of dependencies, then the tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(TOOLS)/bin/cargo-deny --locked check bans licenses sources
	$(NPM) run --prefix web --silent check
	$(MAKE) test

bench: ## measure beside DuckDB, chDB, Polars and DataFusion, and write docs/benchmarks.md (ROWS=1000000: smaller, only printed)
	scripts/install-bench-tools $(BENCH)
	CARGO=$(CARGO) $(BENCH)/venv/bin/python bench/run.py --data $(BENCH) --rows $(ROWS) --stages $(STAGES)

perf-guard: ## count the instructions of hot paths (valgrind) and hold them against bench/guard.json (UPDATE=--update: write them anew)
	CARGO=$(CARGO) python3 bench/guard.py $(UPDATE)

simulate: ## try the windows and deliveries under made-up time and faults (SEEDS=20000: longer)
	CRASHMETER_SEEDS=$(SEEDS) $(CARGO) test --locked --release -p export --test export whatever_goes_wrong -- --nocapture

faults: ## break the built server for real: kills, failing calls, power loss, full disk, store away or cut off, clock, storm (CYCLES=1000 RIGS=kills: longer)
	$(CARGO) build --locked
	python3 faults/run.py --program $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug/crashmeter --cycles $(CYCLES) $(RIGS)

plant: ## plant bugs in a copy, one at a time, and see whether the tests catch each
	python3 faults/plant.py --cargo $(CARGO)

fuzz: ## try made-up inputs on every parser and encoder, see docs/fuzzing.md (SECONDS=60 for each, TARGET=all)
	$(CARGO) run --locked --release --package fuzz -- --seconds $(SECONDS) $(TARGET)

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install --locked --root $(TOOLS) --version $(CARGO_DENY_VERSION) cargo-deny
