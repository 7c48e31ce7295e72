.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat requirements.lock pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)

.PHONY: help
help: ## List what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@rm -f $(VENV)/.ready-* && touch $@

.PHONY: install
install: $(READY) ## Make .venv with everything in it

.PHONY: demo
demo: install ## Show the main job working, with nothing installed but Python
	@$(BIN)/waybill demo

.PHONY: test
test: install ## Run the tests, on real services where this machine has them
	@$(BIN)/python -m pytest

.PHONY: faults
faults: install ## Let everything fail, five times each (FAULT_ROUNDS, FAULT_SEED); prints a table
	@tests/faults.sh

.PHONY: faults-often
faults-often: install ## The third of the fault suite that finds most, once: a few minutes
	@$(BIN)/python -m pytest -m faults_often tests/faults

.PHONY: faults-soak
faults-soak: install ## Let everything fail at random for an hour (SOAK_MINUTES)
	@WAYBILL_TEST_PATIENCE=180 $(BIN)/python -m tests.faults.soak

.PHONY: check
check: install ## Lint, format check, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: bench
bench: install ## Measure the pipeline against two yardsticks, and a thousand small exports at once
	@$(BIN)/python -m tests.bench

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
chart-readme: ## Make helm/README.md anew from the values
	@tests/services/tools.sh
	@source tests/services/versions.env && cd helm && \
	  "$${WAYBILL_TEST_CACHE:-$$HOME/.cache/waybill-tests}/helm-docs-$$HELM_DOCS" --log-level warning

.PHONY: observe
observe: install ## Make every fault, and see that its alert fires and resolves
	@tests/services/install.sh
	@tests/services/tools.sh
	@WAYBILL_OBSERVE=1 WAYBILL_TEST_REAL=require $(BIN)/python -m pytest tests/observability

.PHONY: image-check
image-check: install ## Build the image without an engine, and run an export in it (as root, with debootstrap)
	@$(BIN)/python -m tests.image

.PHONY: resources
resources: install ## Measure memory and CPU by slots, part size and format
	@$(BIN)/python -m tests.bench.resources

.PHONY: ci
ci: install check ## What CI runs: every check, every real service required
	@tests/ci.sh

PIN := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate

.PHONY: lock
lock: ## Pin every dependency anew, with hashes (needs uv)
	$(PIN) pyproject.toml --extra embedded --extra otel --group dev -o requirements.lock
	$(PIN) pyproject.toml --extra otel -c requirements.lock -o requirements-image.lock
	echo hatchling | $(PIN) - -c requirements.lock -o requirements-build.lock

.PHONY: clean
clean: ## Remove what make made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
