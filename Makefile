# What one can do with this repository. Needs cargo, make, and python3 (3.11 or later) with venv.
#
# Everything that is made goes below the target directory. All calls of cargo select the whole
# workspace, because another selection would compile the dependencies once more with other
# features.

CARGO ?= cargo
PYTHON ?= python3
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

# A story starts a server and its Python processes; two of them are enough for small machines.
STORIES_AT_A_TIME ?= 2

HOST_PY := plugin-host-py
# Python outside of the package: the demo, the examples, the stories' clients.
OTHER_PY := bench demo docker examples integration-tests/clients integration-tests/plugins \
            integration-tests/google_by_moto.py
DEV_VENV := $(TARGET)/py-dev
DEV_PYTHON := $(DEV_VENV)/bin/python
DEV_STAMP := $(DEV_VENV)/.installed

.DEFAULT_GOAL := help

## help: show this list
.PHONY: help
help:
	@sed -n 's/^## //p' $(firstword $(MAKEFILE_LIST))

# With the examples, so that this and the tests need libraries with the same features: else the second
# of `make demo`, `make test` and `make docker` would compile everything once more.
## build: build everything, without optimisation
.PHONY: build
build:
	$(CARGO) build --workspace --bins --examples

## demo: show the whole line on real data
.PHONY: demo
demo: build
	$(PYTHON) demo/run.py --binary $(TARGET)/debug/influxdb3 --target $(TARGET)

## test: run all tests: Rust, Python, and stories with the real binary
.PHONY: test
test: test-py test-rust

# With nextest, every test has its own process, and .config/nextest.toml limits the stories.
.PHONY: test-rust
test-rust:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		echo "$(CARGO) nextest run --workspace --no-fail-fast"; \
		$(CARGO) nextest run --workspace --no-fail-fast; \
	else \
		echo "$(CARGO) test --workspace --no-fail-fast -- --test-threads=$(STORIES_AT_A_TIME)"; \
		$(CARGO) test --workspace --no-fail-fast -- --test-threads=$(STORIES_AT_A_TIME); \
	fi

.PHONY: test-py
test-py: $(DEV_STAMP)
	cd $(HOST_PY) && $(DEV_PYTHON) -m pytest -q
	$(DEV_PYTHON) -m pytest -q -p no:cacheprovider --rootdir docker/tour docker/tour

## lint: check formats and style: rustfmt, clippy, ruff, mypy; warnings are errors
.PHONY: lint
lint: lint-rust lint-py

.PHONY: lint-rust
lint-rust:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --keep-going -- -D warnings

.PHONY: lint-py
lint-py: $(DEV_STAMP)
	cd $(HOST_PY) && $(DEV_PYTHON) -m ruff check . && $(DEV_PYTHON) -m ruff format --check .
	cd $(HOST_PY) && $(DEV_PYTHON) -m mypy
	$(DEV_PYTHON) -m ruff check $(OTHER_PY)
	$(DEV_PYTHON) -m ruff format --check $(OTHER_PY)

## docker: build the image around the built binary, and run the README's tour in a container
.PHONY: docker
docker: build
	$(PYTHON) docker/tour --binary $(TARGET)/debug/influxdb3

## bench: build with optimisation and compare speeds (see bench/README.md)
.PHONY: bench
bench:
	$(CARGO) build --release --workspace --bins
	$(PYTHON) bench/plugin_rows.py --binary $(TARGET)/release/influxdb3 --venv $(TARGET)/bench-venv
	$(PYTHON) bench/latency.py --binary $(TARGET)/release/influxdb3 --venv $(TARGET)/bench-venv
	$(PYTHON) bench/overheads.py --binary $(TARGET)/release/influxdb3 --venv $(TARGET)/bench-venv

## bench-scale: load 20 million rows and ask typical queries beside DuckDB
.PHONY: bench-scale
bench-scale:
	$(CARGO) build --release --workspace --bins
	test -x $(TARGET)/scale-venv/bin/python || $(PYTHON) -m venv $(TARGET)/scale-venv
	$(TARGET)/scale-venv/bin/python -m pip install --quiet --disable-pip-version-check duckdb
	$(TARGET)/scale-venv/bin/python bench/scale.py --binary $(TARGET)/release/influxdb3

# How long `make soak` runs.
SOAK_SECONDS ?= 600

## soak: run mixed triggers while workers and hosts are killed, then check that nothing is lost
.PHONY: soak
soak: build
	$(PYTHON) bench/soak.py --binary $(TARGET)/debug/influxdb3 --venv $(TARGET)/bench-venv --seconds $(SOAK_SECONDS)

# How often `make crash` kills the server.
CRASH_CYCLES ?= 100

## crash: kill the server at random moments while it works, and check that nothing acknowledged is lost
.PHONY: crash
crash: build
	$(PYTHON) bench/crash.py --binary $(TARGET)/debug/influxdb3 --cycles $(CRASH_CYCLES)

# How long `make fuzz` tries each target.
FUZZ_SECONDS ?= 60

## fuzz: try what reads bytes with random ones; what fails is shown with its input and seed
.PHONY: fuzz
fuzz:
	BOLERO_RANDOM_ITERATIONS=1000000000 BOLERO_RANDOM_TEST_TIME_MS=$(FUZZ_SECONDS)000 \
		$(CARGO) test --workspace --test reading --test line_protocol -- --test-threads 1

## escapes: run every attempt to escape without each layer in turn, and store the table
.PHONY: escapes
escapes:
	ESCAPES=write $(CARGO) test --workspace --test stories -- --ignored --nocapture \
		escapes::the_table_of_attempts_and_layers_is_true

## format: format Rust and Python
.PHONY: format
format: $(DEV_STAMP)
	$(CARGO) fmt --all
	cd $(HOST_PY) && $(DEV_PYTHON) -m ruff format .
	$(DEV_PYTHON) -m ruff format $(OTHER_PY)

## clean-venvs: remove the virtual environments below the target directory
.PHONY: clean-venvs
clean-venvs:
	rm -rf $(addprefix $(TARGET)/,\
		py-dev demo-venv demo-clients integration-venv integration-clients \
		integration-examples-venv integration-published-venv bench-venv scale-venv)

# The environment for working on the Python package; made anew when its needs change.
$(DEV_STAMP): $(HOST_PY)/pyproject.toml
	$(PYTHON) -m venv $(DEV_VENV)
	$(DEV_PYTHON) -m pip install --quiet --disable-pip-version-check -e './$(HOST_PY)[dev]'
	touch $@
