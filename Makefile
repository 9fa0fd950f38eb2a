# Every target works on a fresh machine with Python 3.11 and make; nothing needs root, Docker or a running service.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Half of what the tests do is waiting for processes to start; two at a time suit two cores as well as eight, and tiny
# models have nothing to gain from threads.
TEST_PROCESSES ?= 2
FUZZ_SECONDS ?= 300
MINUTES ?= 30
STAMP := $(VENV)/.installed
SOURCES := app worker migrations benchmarks documentation tests

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint audit chaos fuzz soak bench capacity quality openapi client docs clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP) ## make .venv with everything (service, worker, development tools)

# Compiled by all cores afterwards, and without the packages' own tests; some files there are templates that are no Python.
$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into $(VENV) (the first time: a few minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --disable-pip-version-check --no-compile --constraint requirements.lock \
		--editable '.[worker,s3,otel,dev]' 2>$(VENV)/pip.log \
		| sed -u -n -E 's/^ *(Downloading|Using cached|Processing) ([^ ]+).*/  \2/p; s/^Installing collected.*/  unpacking .../p' \
		|| { cat $(VENV)/pip.log; exit 1; }
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib app worker >/dev/null 2>&1 || true
	@touch $@

demo: $(STAMP) ## compress the bundled model through the HTTP API and show dense against pruned
	@$(BIN)/python -m app.demo

up: $(STAMP) ## start the service on this machine: http://127.0.0.1:8000
	@$(BIN)/streamline up

test: $(STAMP) ## the walls, then every test that this machine allows
	@$(BIN)/lint-imports
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder

lint: $(STAMP) ## ruff, mypy --strict, the walls, Dockerfile, compose file, manifests and recipes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/check-jsonschema --schemafile deploy/schemas/kubernetes.json --default-filetype yaml deploy/kubernetes/*
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-actions recipes/github/action.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows recipes/github/nightly.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci recipes/gitlab/streamline.gitlab-ci.yml
	@$(BIN)/shellcheck .ci/run recipes/shell/streamline.sh

# In an environment of its own: none of what it needs is needed by anything else. Strict, because a service that cannot be
# asked about a package would otherwise pass for one that knows of nothing; so this needs the network, and CI has none.
audit: ## ask PyPI's advisories about every pinned package; needs the network
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1; }
	@$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r requirements.lock

chaos: $(STAMP) ## faults put into a whole deployment (own Postgres and Redis); one line per promise
	@OMP_NUM_THREADS=1 $(BIN)/pytest tests/chaos

fuzz: $(STAMP) ## new requests made up from the OpenAPI document, FUZZ_SECONDS=300 for each scope; new examples of properties
	@STREAMLINE_TEST_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest tests/integration/api/test_fuzzing.py
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m hypothesis --hypothesis-profile explore

soak: $(STAMP) ## random faults for MINUTES=30 under a steady stream of jobs; nothing lost, doubled or leaked
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)

bench: $(STAMP) ## each speed and memory figure as a ratio to its floor, measured in the same run
	@$(BIN)/python -m benchmarks

capacity: $(STAMP) ## simulate 1,000 jobs a day on fleets of GPUs: queue times, utilisation, what is short first
	@$(BIN)/python -m benchmarks.capacity

quality: $(STAMP) ## recipes beside the published procedure: DATA=directory of tinystories_{train,test}.jsonl, books_valid.jsonl
	@$(BIN)/python -m benchmarks.quality --model app/bundled/stories-24l --calibration $(DATA)/tinystories_train.jsonl \
		--evaluate $(DATA)/tinystories_test.jsonl $(DATA)/books_valid.jsonl --layers 6 12 --recipes published layer

openapi: $(STAMP) ## write docs/openapi.json, which generated clients are made from
	@$(BIN)/python -m app.openapi > $(VENV)/made && mv $(VENV)/made docs/openapi.json

client: $(STAMP) ## write app/client/streamline.py, which is made from asynchronous.py beside it
	@$(BIN)/python -m app.synchronous_client > $(VENV)/made && mv $(VENV)/made app/client/streamline.py

docs: $(STAMP) ## build the documentation as a site into site/; any warning fails it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "site/index.html; with its search: $(BIN)/python -m http.server -d site"

clean: ## remove .venv, the site and the demo's data
	@rm -rf $(VENV) site streamline-data demo-output
