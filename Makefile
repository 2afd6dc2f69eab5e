.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
MINUTES ?= 10
ARGS ?=

# Each PYTHON has environments of its own.
SUFFIX := $(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
VENV := .venv$(SUFFIX)
VENV_DEMO := .venv-demo$(SUFFIX)
VENV_DEPLOY := .venv-deploy$(SUFFIX)
RUN := $(VENV)/bin/python -m

# A virtual environment from pins with hashes; nothing is resolved, nothing is built but the package itself.
define make_venv
	@echo "Making $(1), an environment of its own, from pins with hashes: $(3)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo none that runs here). Try make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || bash tests/rig/brokers.sh python3-venv
	@rm -rf $(1)
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/pip install -qq --disable-pip-version-check --require-hashes --requirement $(2) || \
	    { echo "The packages could not be installed, see above. This needs a network, once: pip's index, or a mirror that pip"; \
	      echo "is configured for. Nothing outside $(1) was changed."; exit 1; }
	@$(1)/bin/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
endef

.PHONY: help venv brokers broker valgrind test pythons coverage budget test-deploy lint format types demo bench faults simulate soak fuzz sbom release lock clean

help: ## list these verbs
	@echo "make VERB [ARGS='…']; ARGS are passed on to the program that the verb runs"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

venv: $(VENV)/.complete ## the virtual environment .venv, from pins with hashes
$(VENV)/.complete: requirements-dev.lock pyproject.toml
	$(call make_venv,$(VENV),requirements-dev.lock,200 MB in about two minutes)

$(VENV_DEPLOY)/.complete: requirements-dev.lock tests/deploy/requirements.lock pyproject.toml
	$(call make_venv,$(VENV_DEPLOY),requirements-dev.lock --requirement tests/deploy/requirements.lock,400 MB in some minutes)

$(VENV_DEMO)/.complete: requirements-demo.lock pyproject.toml
	$(call make_venv,$(VENV_DEMO),requirements-demo.lock,80 MB in about a minute)

brokers: ## the brokers that the tests start: the distribution's RabbitMQ, and 4.3 in a cache folder
	@bash tests/rig/brokers.sh 3.10 4.3

broker:
	@bash tests/rig/brokers.sh 3.10

valgrind:
	@command -v valgrind >/dev/null || bash tests/rig/brokers.sh valgrind

test: venv brokers ## the whole test suite, against real brokers
	$(RUN) pytest --numprocesses 2 --dist loadscope --ignore tests/deploy $(ARGS)

pythons: venv brokers ## TLS and what is read from sockets, under each other supported Python that is here
	$(RUN) tests.programs.pythons

coverage: venv ## every branch of each pure module, by that module's own tests
	$(RUN) tests.programs.coverage_by_file $(ARGS)

budget: venv valgrind ## instructions per message in the pure layers, within 3 % of what is recorded
	$(RUN) tests.budget $(ARGS)

test-deploy: $(VENV_DEPLOY)/.complete brokers ## image, chart, alerts and dashboard, with the real tools
	$(VENV_DEPLOY)/bin/python -m tests.deploy.tools
	$(VENV_DEPLOY)/bin/python -m pytest --numprocesses 2 --dist loadscope tests/deploy $(ARGS)

lint: venv ## ruff: lint and format check; codespell: misspellings
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(VENV)/bin/codespell

format: venv ## ruff: mend what can be mended, and format
	$(RUN) ruff check --fix-only
	$(RUN) ruff format

types: venv ## mypy, strict
	$(RUN) mypy

demo: $(VENV_DEMO)/.complete broker ## 100,000 messages, a source broker killed on the way, and a count of what arrived
	@$(VENV_DEMO)/bin/python -m tests.programs.demo $(ARGS)

bench: venv brokers ## measure against Shovel and an aio-pika loop
	$(RUN) tests.bench $(ARGS)

faults: venv brokers ## the fault matrix on real brokers, as a table
	$(RUN) tests.programs.faults $(ARGS)

simulate: venv ## a million schedules of model brokers and faults
	$(RUN) tests.simulation $(ARGS)

soak: venv brokers ## full load and random faults for MINUTES=10
	$(RUN) tests.programs.soak --minutes $(MINUTES) $(ARGS)

fuzz: venv ## hostile bytes, guided by coverage (atheris): five minutes, ARGS="--seconds 3600" for an hour
	$(RUN) tests.fuzz $(ARGS)

sbom: $(VENV_DEPLOY)/.complete ## the bill of materials, CycloneDX, into dist/: exactly what requirements.lock pins
	$(VENV_DEPLOY)/bin/python -m tests.programs.release sbom

release: $(VENV_DEPLOY)/.complete ## wheel, sdist, chart, SBOM and checksums into dist/, and what is left to a person
	$(VENV_DEPLOY)/bin/python -m tests.programs.release

LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11
lock: ## pin anew what pyproject.toml allows (needs uv)
	$(LOCK) --upgrade pyproject.toml --extra oauth --extra streams --extra terminal --output-file requirements.lock
	$(LOCK) --upgrade pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --group demo --constraint requirements-dev.lock --output-file requirements-demo.lock
	$(LOCK) --upgrade tests/deploy/requirements.txt --output-file tests/deploy/requirements.lock

clean: ## remove what was made here (the brokers' cache folder stays)
	rm -rf .venv .venv-* dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
