# SPDX-License-Identifier: Apache-2.0
# Every target installs what it needs first. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo libero test test-all check bench bench-reference docs clean
SHELL := /bin/sh

RUN := .venv/bin/
PYTEST := $(RUN)python -m pytest -n auto --dist worksteal

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.metaworld: pyproject.toml constraints.txt tools/bootstrap.sh
	@sh tools/bootstrap.sh metaworld
	@touch $@

.venv/.dev: pyproject.toml constraints.txt tools/bootstrap.sh
	@sh tools/bootstrap.sh metaworld,pusht,dev
	@touch .venv/.metaworld $@

.venv/.libero: pyproject.toml constraints.txt tools/bootstrap.sh
	@sh tools/bootstrap.sh libero
	@touch $@

demo: .venv/.metaworld ## Record, train and evaluate both policies on Meta-World; writes outputs/demo/report.html
	@$(RUN)vlakit demo $(ARGS)

libero: .venv/.libero ## Install the simulator LIBERO as well (1 GB)

test: .venv/.dev ## Run the default tests (CPU, no network, minutes)
	@$(PYTEST) $(ARGS)

test-all: .venv/.dev .venv/.libero ## Run every test that this machine can run, the slow ones too
	@$(PYTEST) -m 'not gpu and not network' $(ARGS)

check: .venv/.dev ## Lint, format, types and import direction
	@$(RUN)ruff check .
	@$(RUN)ruff format --check .
	@$(RUN)pyrefly check --summarize-errors
	@$(RUN)lint-imports --no-cache

bench: .venv/.dev ## Run the benchmarks and print one JSON line each
	@for file in $(filter-out %/table.py %/speculative_decoding.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$file"; $(RUN)python $$file || exit 1; done

bench-reference: .venv/.dev ## Run the benchmarks beside LeRobot (6 GB, Python 3.12) and print the table
	@sh benchmarks/all.sh $(ARGS)

docs: .venv/.dev ## Regenerate the generated pages of docs/
	@$(RUN)python tools/make_flags_page.py

clean: ## Remove .venv and the outputs of the demo
	rm -rf .venv outputs/demo
