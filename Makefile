.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv installs several times faster than pip. Without it, pip fetches the pinned version into the venv.
UV := $(or $(shell command -v uv),$(BIN)/uv)
DEMO_READY := $(VENV)/.demo-$(shell cat requirements-demo.lock requirements-build.lock pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)
READY := $(VENV)/.ready-$(shell cat requirements.lock pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)

# Where a shell or an image sets it, each of the hundreds of processes of a test run compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A venv of an older Python would stay, and runs with a newer one would use it.
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo '$(PYTHON) is not Python 3.11 or later; make PYTHON=python3.12, for example, chooses another.' >&2; exit 1; }

$(BIN)/uv:
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock

$(BIN)/python: | $(UV)
	@$(CHECK_PYTHON)
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)

INSTALL = $(UV) pip install --quiet --python $(BIN)/python --no-deps

# The pins of the demo are a part of those for development, so that one venv serves both.
$(READY): requirements.lock pyproject.toml | $(BIN)/python $(UV)
	@echo 'Installing the Python packages for development into $(VENV): this takes a few minutes.'
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-build-isolation -e .
	@rm -f $(VENV)/.ready-* && touch $@

$(DEMO_READY): requirements-demo.lock requirements-build.lock pyproject.toml | $(BIN)/python $(UV)
	@echo 'Installing the Python packages of the demo into $(VENV): this takes a few minutes.'
	@$(INSTALL) --require-hashes -r requirements-demo.lock -r requirements-build.lock
	@$(INSTALL) --no-build-isolation -e .
	@rm -f $(VENV)/.demo-* && touch $@

.PHONY: install
install: $(READY) ## Install everything for development into .venv

.PHONY: demo
demo: $(DEMO_READY) ## Run an export on embedded services; needs Python, its venv module and make
	@mkdir -p .waybill && $(BIN)/waybill demo --folder "$$(mktemp -d .waybill/demo-XXXXXX)"

# One worker more than there are cores, up to four: tests wait for a third of their time. A worker with the embedded
# services takes about 1 GB.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 3 ? cores + 1 : 4)))
export WORKERS
PARALLEL = $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal

.PHONY: unit
unit: install ## Run the unit tests, without real services
	@WAYBILL_TEST_REAL=off $(PARALLEL) -m "not faults and not slow" tests/unit

.PHONY: test
test: install ## Run the tests that a change needs, on real services where this machine has them
	@$(PARALLEL) -m "not faults and not slow" $(wildcard tests/unit tests/services tests/golden tests/contract tests/e2e); \
	  status=$$?; $(BIN)/python -m tests.services.choice; exit $$status

.PHONY: faults
faults: install ## Let everything fail, five times each (FAULT_ROUNDS, FAULT_SEED); prints a table
	@tests/faults.sh

.PHONY: faults-often
faults-often: install ## The third of the fault suite that finds most, once: a few minutes
	@$(BIN)/python -m pytest -m faults_often tests/faults

.PHONY: faults-soak
faults-soak: install ## Let everything fail at random for an hour (SOAK_MINUTES), with hostile inputs
	@WAYBILL_TEST_PATIENCE=180 $(BIN)/python -m tests.faults.soak

.PHONY: faults-fuzz
faults-fuzz: install ## Give random hostile inputs of every kind for ten minutes (FUZZ_MINUTES)
	@WAYBILL_TEST_PATIENCE=180 $(BIN)/python -m tests.faults.fuzz

.PHONY: faults-upgrade
faults-upgrade: install ## Run an older version (WAYBILL_OLD_CHECKOUT) and this one together, and replace each by the other
	@: $${WAYBILL_OLD_CHECKOUT:?names no checkout of an older version}
	@WAYBILL_TEST_PATIENCE=180 WAYBILL_TEST_REAL=require $(BIN)/python -m pytest -m faults tests/faults/test_upgrade.py

.PHONY: check
check: install ## Lint, format check, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: bench
bench: install ## Measure the pipeline against three baselines, and a thousand simultaneous small exports
	@$(BIN)/python -m tests.bench

.PHONY: bench-ratios
bench-ratios: install ## Compare the CPU of exports with that of ClickHouse itself, and with the committed ratios: minutes
	@$(BIN)/python -m tests.bench.ratios

.PHONY: bench-large
bench-large: install ## Measure 5,000,000 traces, and as many observations, to a file
	@$(BIN)/python -m tests.bench --rows 5000000 --observations 5000000 --formats CSV --repeats 1 --no-s3 \
	  --tables observations --names --small 0

.PHONY: bench-steady
bench-steady: install ## Measure an idle hour of the daemons, then ten thousand small exports
	@$(BIN)/python -m tests.bench.steady

.PHONY: chart
chart: install ## Lint, render, validate and test the chart, its alerts and its dashboards
	@tests/services/tools.sh
	@WAYBILL_TEST_REAL=require $(BIN)/python -m pytest tests/chart

.PHONY: chart-readme
chart-readme: ## Generate helm/README.md from the values
	@tests/services/tools.sh
	@source tests/services/versions.env && cd helm && \
	  "$${WAYBILL_TEST_CACHE:-$$HOME/.cache/waybill-tests}/helm-docs-$$HELM_DOCS" --log-level warning

.PHONY: observe
observe: install ## Cause every fault, and check that its alert fires and resolves
	@tests/services/install.sh
	@tests/services/tools.sh
	@WAYBILL_OBSERVE=1 WAYBILL_TEST_REAL=require $(BIN)/python -m pytest tests/observability

.PHONY: image
image: install ## Build the image with Podman on a base of Debian's packages, and print its name (on Debian, as root)
	@tests/services/install.sh
	@$(BIN)/python -m tests.image

.PHONY: image-check
image-check: install ## Build the image, and run doctor and an export in containers without rights (on Debian, as root)
	@tests/services/install.sh
	@WAYBILL_TEST_REAL=require $(BIN)/python -m pytest tests/image

.PHONY: containers
containers: install ## Run the image, docker-compose.yml and the chart's pods in containers (on Debian, as root)
	@tests/services/install.sh
	@tests/services/tools.sh
	@WAYBILL_TEST_REAL=require $(BIN)/python -m pytest tests/image tests/compose tests/pods

.PHONY: resources
resources: install ## Measure memory and CPU by slots, part size and format
	@$(BIN)/python -m tests.bench.resources

.PHONY: ci
# The cache of mypy outlives the checkout.
ci: export MYPY_CACHE_DIR = $(or $(WAYBILL_TEST_CACHE),$(HOME)/.cache/waybill-tests)/mypy
ci: install check ## What CI runs: every check, every real service required
	@tests/ci.sh

PIN = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

.PHONY: lock
lock: | $(UV) ## Pin every dependency with hashes
	$(PIN) pyproject.toml --extra azure --extra embedded --extra google --extra msk --extra otel --group dev -o requirements.lock
	$(PIN) pyproject.toml --extra embedded -c requirements.lock -o requirements-demo.lock
	$(PIN) pyproject.toml --extra azure --extra google --extra msk --extra otel -c requirements.lock -o requirements-image.lock
	echo hatchling | $(PIN) - -c requirements.lock -o requirements-build.lock
	echo uv | $(PIN) - -o requirements-uv.lock

.PHONY: clean
clean: ## Remove everything that make created here
	rm -rf $(VENV) .waybill .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
