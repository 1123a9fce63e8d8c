# `make help` lists what there is.

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

COLLECTIONS := .cache/collections/ansible_collections/bulletproof/deploy
SOURCES := $(sort $(shell find galaxy.yml README.md COPYING meta plugins roles playbooks changelogs -type f -not -name '*.pyc' 2> /dev/null))
MOLECULE := $(wildcard molecule/*/molecule.yml)
# How many tests of a kind run at the same time, each worker with lab hosts of its own.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help env collection lint sanity unit molecule e2e e2e-matrix fault fault-sample fault-matrix proofs integration integration-matrix test demo bench bench-rolling bench-scale clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

env: .venv/complete $(COLLECTIONS) ## the tools, in .venv

.venv/complete: requirements-dev.txt .ci/environment
	.ci/environment
	@touch $@

$(COLLECTIONS):
	@mkdir -p $(dir $@)
	@ln -sfn ../../../.. $@

collection: env .cache/installed/complete ## build the collection and install it into .cache/installed

# A file that is gone is a change as well. The time of its directory tells nothing: Python keeps bytecode in there.
.cache/sources: FORCE
	@mkdir -p $(dir $@)
	@cmp --silent $@ <<< '$(SOURCES)' || cat > $@ <<< '$(SOURCES)'

.cache/installed/complete: $(SOURCES) .cache/sources
	rm -rf build .cache/installed
	ansible-galaxy collection build --output-path build
	ANSIBLE_COLLECTIONS_PATH=.cache/installed ansible-galaxy collection install --offline --no-deps build/*.tar.gz
	@touch $@

lint: env ## style, types and documentation
	ruff check .
	ruff format --check .
	cd .cache/collections && mypy --config-file $(CURDIR)/pyproject.toml -p ansible_collections.bulletproof.deploy.plugins
	MYPYPATH=tests mypy -p lab
	yamllint --strict .
	ansible-lint
	cd $(COLLECTIONS) && antsibull-changelog lint
	$(MAKE) --no-print-directory collection
	.ci/documented

sanity: env ## ansible-test sanity, with no ignore files
	.ci/sanity

unit: env ## tests that need no host
	pytest tests/unit --ignore tests/unit/lab --ignore tests/unit/artefact -n $(WORKERS) --dist loadfile
	pytest tests/unit/lab tests/unit/artefact

molecule: env ## the roles' scenarios on lab hosts
ifeq ($(MOLECULE),)
	@echo "There are no scenarios."
else
	cd $(COLLECTIONS) && PYTHONPATH=$(CURDIR)/tests molecule test --all
endif

e2e: collection ## whole deployments on lab hosts, under load and with faults
	pytest tests/e2e -n $(WORKERS) --dist loadfile --durations 15

e2e-matrix: collection ## the same, all cases: more Debian releases
	pytest tests/e2e -n $(WORKERS) --dist loadfile --matrix

fault: collection ## break each thing at each task of a rolling deploy of a fleet, and report a table
	PYTHONPATH=tests .venv/bin/python -m fault.matrix $(OPTIONS)

fault-sample: collection ## deployments in which one thing is broken: a sample of the cases
	pytest tests/fault -n $(WORKERS) --dist loadfile --durations 15

fault-matrix: collection ## the same, all cases
	pytest tests/fault -n $(WORKERS) --dist loadfile --matrix

proofs: env ## take each protection out, and see its test fail
	.venv/bin/python tests/proofs.py $(OPTIONS)

integration: collection ## modules on lab hosts, with real SQLite, PostgreSQL, S3, systemd and logs: a sample of the cases
	pytest tests/integration -n $(WORKERS) --dist loadfile --durations 15

integration-matrix: collection ## the same, all cases
	pytest tests/integration -n $(WORKERS) --dist loadfile --matrix

# Two lanes of about the same length: each leaves a core idle half of the time.
test: collection ## lint, sanity, unit, integration and fault-sample; beside them, molecule and e2e
	@.ci/steps 'lint sanity unit integration fault-sample' 'molecule e2e'

demo: collection ## deploy a small application, update it, break it, roll it back
	.venv/bin/python examples/demo.py

bench: collection ## compare with a shell script, pyinfra and Capistrano
	.venv/bin/python benchmarks/bench.py $(OPTIONS)

bench-rolling: collection ## deploys to fleets of 1, 2, 4 and 8 lab hosts
	.venv/bin/python benchmarks/rolling.py $(OPTIONS)

bench-scale: collection ## where Ansible becomes the limit: deploys to 1 to 100 hosts that are not there
	.venv/bin/python benchmarks/scale.py $(OPTIONS)

clean: ## remove lab hosts, build results and caches; .venv stays
	-PYTHONPATH=tests .venv/bin/python -m lab down --all
	rm -rf build .ansible .cache .mypy_cache .pytest_cache .ruff_cache
