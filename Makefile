# One command a habit, the same at home and in CI. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
BIN := $(VENV)/bin

# What `make demo` and `make test` take from the command line.
DATA ?=
WEIGHTS ?=
BACKBONE ?=
ARGS ?=
SEED ?=
EPISODES ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Decides by itself, at once, whether there is anything to do.
.PHONY: environment
environment: ## Make the environment in .venv, or bring it up to date; PYTHON=python3.12 chooses
	@PYTHON='$(PYTHON)' scripts/environment $(VENV)

.PHONY: demo
demo: environment ## A whole line on this machine; DATA=folder WEIGHTS=file BACKBONE=name take your own
	@$(BIN)/gaussline demo $(if $(DATA),--data '$(DATA)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
	  $(if $(BACKBONE),--backbone '$(BACKBONE)') $(ARGS)

.PHONY: demo-online
demo-online: environment ## A line that drifts, a frozen model and one that learns; two minutes; WEIGHTS=file BACKBONE=name
	@$(BIN)/gaussline demo-online $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(if $(BACKBONE),--backbone '$(BACKBONE)') \
	  $(ARGS)

# Two processes share two cores best when each keeps to one thread.
.PHONY: test
test: export OMP_NUM_THREADS ?= 1
test: environment ## Run the tests; ARGS='-k name' passes words to pytest
	@$(BIN)/pytest -n 2 --dist loadfile --durations 15 $(ARGS)

.PHONY: lint
lint: environment ## Check style, format, types and shell scripts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/shellcheck .ci/run scripts/environment deploy/redis/certificates
	@$(BIN)/python scripts/typecheck

# Faults on purpose. The long run of docs/reliability.md is EPISODES=600; a finding prints how to run its episode again.
.PHONY: faults
faults: export OMP_NUM_THREADS ?= 1
faults: environment ## Break a line on purpose and count; SEED=1 EPISODES=100 ARGS='--help'
	@$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(EPISODES),--episodes $(EPISODES)) $(ARGS)

.PHONY: docs
docs: environment ## Write the pages, examples and dashboards that are made from the code
	@$(BIN)/python scripts/docs

# Most of it is waiting, so the sites wait side by side; more of them than cores would not keep their times.
.PHONY: monitoring-check
monitoring-check: environment ## Every panel and every alert against a real Prometheus and a real line; a quarter of an hour
	@$(BIN)/pytest -n 2 --dist load -o 'python_files=test_*.py slow_*.py' tests/monitoring $(ARGS)

# The fuzzer is not part of the environment: it is large, and only this wants it.
.PHONY: fuzz
fuzz: environment ## Fuzz the decoders, guided by coverage; SECONDS_EACH=60 TARGETS='image message'
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install -q 'atheris>=2.3'
	@for target in $(or $(TARGETS),image raw message event verdict artefact); do \
	  echo "== $$target"; $(BIN)/python -m tests.fuzz $$target --seconds $(or $(SECONDS_EACH),60); done

.PHONY: bench
bench: environment ## The pipeline beside its peers, in one run; WEIGHTS=file BACKBONE=name ARGS='--help'
	@$(BIN)/python -m bench.pipeline $(if $(BACKBONE),--backbone '$(BACKBONE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
	  $(ARGS)

.PHONY: bench-heatmaps
bench-heatmaps: environment ## What heat maps cost the verdict path, at 5 % failed frames
	@$(BIN)/python -m bench.heat_maps $(if $(BACKBONE),--backbone '$(BACKBONE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
	  $(ARGS)

.PHONY: bench-swap
bench-swap: environment ## A promotion a second under load, and what online mode and a shadow cost
	@$(BIN)/python -m bench.swap $(if $(BACKBONE),--backbone '$(BACKBONE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
	  $(ARGS)

.PHONY: bench-guards
bench-guards: environment ## What the guards against loss, doubling and poison cost, in one run with and without
	@$(BIN)/python -m bench.guards $(if $(BACKBONE),--backbone '$(BACKBONE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
	  $(ARGS)

.PHONY: bench-recovery
bench-recovery: environment ## How soon a line with a backbone goes on after a kill, and a restart of Redis; WEIGHTS=file BACKBONE=name
	@$(BIN)/python -m bench.recovery $(if $(BACKBONE),--backbone '$(BACKBONE)') --weights '$(WEIGHTS)' $(ARGS)

.PHONY: bench-accuracy
bench-accuracy: environment ## Beside public methods, in an environment of their own; DATA=folder WEIGHTS=file of mobilenet_v2
	@$(BIN)/python -m bench.accuracy '$(DATA)' '$(WEIGHTS)' $(ARGS)

.PHONY: bench-scoring
bench-scoring: environment ## Scoring beside the backbone's time, and a fit, at EfficientNet-B4 sizes; BACKBONE=name ARGS='--help'
	@$(BIN)/python -m bench.scoring $(if $(BACKBONE),--backbone '$(BACKBONE)') $(ARGS)

.PHONY: bench-localisation
bench-localisation: environment ## The exact heat map beside a map by position, against known masks; WEIGHTS=file of mobilenet_v2
	@$(BIN)/python -m bench.localisation '$(WEIGHTS)' $(ARGS)

.PHONY: bench-learner
bench-learner: environment ## The online learner beside its peers, at EfficientNet-B4 sizes
	@$(BIN)/python -m bench.learner $(ARGS)

.PHONY: clean
clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) .build .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find bench producer tests worker -name __pycache__ -type d -prune -exec rm -rf {} +
