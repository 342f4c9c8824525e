# All set-up there is. Every target makes what it needs, from a bare Python 3.11, and says what it does.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
LOCK := --quiet --upgrade --generate-hashes --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

# Else each start of each process would compile all of Tabor's modules again, which takes longer than to run them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test fuzz lint format ui screenshots bench bench-quick bench-kernels kafka metrics docs dist wheelhouse lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/run.stamp ## Run Tabor on this machine: data in ./data, http://127.0.0.1:9080 (ARGS="--listen …")
	@exec $(BIN)/tabor run $(ARGS)

test: $(VENV)/dev.stamp ## Run all tests (ARGS="tests/unit -k chunk" for some); needs Java 17, prometheus, node exporter
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),--numprocesses 2 --dist loadfile)

fuzz: $(VENV)/dev.stamp ## Fuzz the decoders of bytes from outside (ARGS="--target remote_write --seconds 600")
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: $(VENV)/dev.stamp ## ruff, mypy --strict, import-linter, licences of dependencies
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.licences

format: $(VENV)/dev.stamp ## Format the sources
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

ui: ui/node_modules/.stamp ## Check and build the page from ui/ into tabor/page/static; needs Node 20 and npm
	@cd ui && npm run --silent check && npm run --silent build

screenshots: $(VENV)/dev.stamp ## Make the pictures in docs/images anew; needs chromium and chromium-driver
	@$(BIN)/python -m tests.page

bench: $(VENV)/dev.stamp ## Measure Tabor, Prometheus and VictoriaMetrics side by side; saves bench/results (ARGS="--recorded …")
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(VENV)/dev.stamp ## The same in small, in less than two minutes
	@$(BIN)/python -m bench --quick $(ARGS)

bench-kernels: $(VENV)/dev.stamp ## Measure every kernel by itself: ns an element, share of the memory's bandwidth (ARGS="-k json")
	@$(BIN)/python -m pytest -q -o addopts= --benchmark-quiet bench/kernels $(ARGS)

kafka: $(VENV)/dev.stamp ## Run a local single Kafka broker in the foreground, without Docker (ARGS="--port 9092")
	@exec $(BIN)/python -m tests.kafka_broker $(ARGS)

docs: $(VENV)/dev.stamp ## Build the documentation as a site into build/site; every warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "open build/site/index.html"

dist: $(VENV)/dev.stamp ## Build wheel and sdist into dist, reproducibly
	@$(BIN)/python .ci/dist.py build --to dist

wheelhouse: $(VENV)/dev.stamp ## Gather the wheel and all it needs into dist/wheelhouse, to install without a network
	@$(BIN)/python .ci/dist.py wheelhouse --to dist/wheelhouse

metrics: $(VENV)/dev.stamp ## Write docs/metrics.md anew from the metrics in the code
	@$(BIN)/python -m tests.metrics_page > .cache/metrics.md && mv .cache/metrics.md docs/metrics.md

lock: | $(VENV)/bin/python ## Pin exact versions of everything pyproject.toml allows
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-tools
	@$(BIN)/pip-compile $(LOCK) --output-file requirements.lock pyproject.toml
	@$(BIN)/pip-compile $(LOCK) --allow-unsafe --extra dev --output-file requirements-dev.lock pyproject.toml

clean: ## Remove what the other targets made, but not your data
	rm -rf $(VENV) .cache ui/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

ui/node_modules/.stamp: ui/package-lock.json ui/package.json
	@echo "installing the page's packages into ui/node_modules"
	@cd ui && npm ci --silent
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tabor needs Python 3.11 or newer; $(PYTHON) is older. Say which to take: make PYTHON=python3.11 …"; exit 1; }
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/run.stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing Tabor's packages into $(VENV) (once, about 160 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/run.stamp
	@echo "installing the packages for tests and checks into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
