# What a person types; `make` alone lists it. Targets make the environment they need, so that nothing has to be
# installed by hand, and bring it up to date when pyproject.toml or a lock has changed.

ENV := .venv
BENCH_ENV := .venv-bench
RELEASE_ENV := .venv-release
CLUSTER_ENV := .venv-cluster
LOWEST_ENV := .venv-lowest
CORPUS := corpora/shakespeare.txt
PYTHONS := python3 python3.13 python3.12 python3.11 python
BENCHMARKS := training generation serve_load overload hot_swap gradcheck_steps run_list
IMAGE := charloom
BIOME := node_modules/.bin/biome
PIP := -m pip --disable-pip-version-check --quiet --no-input
LOCKED := $(PIP) install --require-hashes --only-binary :all:
PROJECT := $(PIP) install --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check check-page format pictures bench lock lowest image image-test cluster-test release clean

help: ## List the targets
	@echo 'Charloom: give it a text; it trains a character-level RNN and serves the newest checkpoint.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'ARGS="..." is handed on:     make serve ARGS="--port 9000"     make test ARGS="-k vocabulary"'
	@echo 'CHARLOOM_* configures it:    CHARLOOM_CORPUS=my.txt make serve'

serve: $(ENV)/.runtime $(if $(CHARLOOM_CORPUS),,$(CORPUS)) ## Train, and serve at http://127.0.0.1:8000
	@echo 'Starting Charloom ...'
	@exec $(ENV)/bin/python -m app.cli serve $(ARGS)

test: $(ENV)/.dev ## Run the tests; those of the page need Chromium, and say so
	$(ENV)/bin/python -m pytest -rs $(ARGS)

check: $(ENV)/.dev check-page ## Check format, lint, types, import contracts, page scripts, Dockerfile, locks
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/ruff check .
	$(ENV)/bin/mypy
	$(ENV)/bin/lint-imports
	$(ENV)/bin/hadolint Dockerfile
	$(ENV)/bin/python requirements/lock.py check

format: $(ENV)/.dev ## Format the code
	$(ENV)/bin/ruff check --fix .
	$(ENV)/bin/ruff format .
	@! command -v npm >/dev/null || { $(MAKE) -s $(BIOME) && $(BIOME) check --write; }

# scripts and styles of the page; the only tool that needs Node.js
check-page:
	@if command -v npm >/dev/null; then \
	    $(MAKE) -s $(BIOME) && $(BIOME) check --error-on-warnings; \
	else \
	    echo "NOT CHECKED: the page's scripts and styles. Biome needs Node.js and npm: apt install nodejs npm" >&2; \
	fi

pictures: $(ENV)/.dev ## Make the pictures of the page in README and docs, from what `make serve` has trained
	$(ENV)/bin/python -m tests.page.pictures $(ARGS)

bench: $(BENCH_ENV)/.bench $(CORPUS) ## Measure, beside PyTorch and LitServe (one only: BENCHMARKS=training; or =soak)
	set -e; for name in $(BENCHMARKS); do $(BENCH_ENV)/bin/python -m benchmarks.$$name $(ARGS); done

lock: $(RELEASE_ENV)/.release ## Make the locks fit pyproject.toml (ARGS=--upgrade: with the newest versions)
	$(RELEASE_ENV)/bin/python requirements/lock.py write $(ARGS)

# old versions warn of each other; that is not an error here
lowest: $(RELEASE_ENV)/.release $(LOWEST_ENV)/bin/python ## Run the tests with the lowest versions that pyproject.toml allows
	$(RELEASE_ENV)/bin/python requirements/lock.py lowest build/lowest.txt
	$(LOWEST_ENV)/bin/python $(LOCKED) --requirement build/lowest.txt
	$(LOWEST_ENV)/bin/python $(PROJECT)
	$(LOWEST_ENV)/bin/python -m pytest -rs -o filterwarnings=default \
		--deselect tests/test_dependencies.py::test_installed_versions_are_those_of_the_lock $(ARGS)

image: ## Build the container image
	docker build --tag $(IMAGE) $(ARGS) .

image-test: $(ENV)/.runtime ## Run image and compose file with a Docker engine: hardened, healthy, killed, scaled
	@$(ENV)/bin/python .ci/image_test.py $(ARGS)

cluster-test: $(CLUSTER_ENV)/.cluster ## Run workers on two Ray nodes over one store, and kill a node: Ray is large
	@$(CLUSTER_ENV)/bin/python .ci/cluster_test.py $(ARGS)

# pip-audit passes over what the service does not know, and is content
define UNAUDITED
import json, sys
packages = [one for one in json.load(open(sys.argv[1]))["dependencies"] if one["name"] != "charloom"]
skipped = [one["name"] for one in packages if "skip_reason" in one]
if skipped:
    print(f"NOT AUDITED: {len(skipped)} of {len(packages)} packages, {', '.join(skipped[:3])}, ...", file=sys.stderr)
endef
export UNAUDITED

# what is audited and listed is what the image holds, nothing of the tools'
release: $(RELEASE_ENV)/.release ## Build dist/: wheel, sources, bill of materials (CycloneDX), audit
	rm -rf dist build/installed
	$(RELEASE_ENV)/bin/python -m build --no-isolation --outdir dist .
	$(RELEASE_ENV)/bin/python -m venv --clear build/installed
	build/installed/bin/python $(LOCKED) --requirement requirements/runtime.txt
	build/installed/bin/python $(PIP) install --no-deps dist/*.whl
	$(RELEASE_ENV)/bin/cyclonedx-py environment build/installed/bin/python --output-file dist/charloom.cdx.json
	$(RELEASE_ENV)/bin/pip-audit --format json --output dist/audit.json \
	    --path build/installed/lib/python*/site-packages \
	    || { test ! -s dist/audit.json && echo 'NOT AUDITED: the service of known vulnerabilities gave no answer' >&2; }
	@test ! -s dist/audit.json || $(RELEASE_ENV)/bin/python -c "$$UNAUDITED" dist/audit.json
	@ls -l dist

clean: ## Remove environments and caches; runs and texts are kept
	rm -rf $(ENV) $(BENCH_ENV) $(RELEASE_ENV) $(LOWEST_ENV) $(CLUSTER_ENV) node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find app model tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(CORPUS): | $(ENV)/.runtime
	$(ENV)/bin/python -m app.intake.corpus $@

$(ENV)/.runtime: pyproject.toml requirements/build.txt requirements/runtime.txt $(ENV)/bin/python
	@echo 'Installing what Charloom needs into $(ENV) ...'
	@$(ENV)/bin/python $(LOCKED) --requirement requirements/build.txt --requirement requirements/runtime.txt
	@$(ENV)/bin/python $(PROJECT)
	@touch $@

$(ENV)/.dev: pyproject.toml requirements/dev.txt $(ENV)/bin/python
	@echo 'Installing what Charloom and its tests need into $(ENV) ...'
	@$(ENV)/bin/python $(LOCKED) --requirement requirements/dev.txt
	@$(ENV)/bin/python $(PROJECT)
	@touch $(ENV)/.runtime $@

$(BIOME): package-lock.json
	@echo 'Installing Biome into node_modules ...'
	@npm ci --no-audit --no-fund --loglevel error
	@touch $@

# PyTorch and LitServe are not locked, what is measured is
$(BENCH_ENV)/.bench: pyproject.toml requirements/build.txt requirements/runtime.txt $(BENCH_ENV)/bin/python
	@echo 'Installing what the benchmarks need into $(BENCH_ENV): PyTorch is large ...'
	@$(BENCH_ENV)/bin/python $(LOCKED) --requirement requirements/build.txt --requirement requirements/runtime.txt
	@$(BENCH_ENV)/bin/python $(PIP) install --no-build-isolation --editable '.[bench]'
	@touch $@

# Ray is not locked: nothing of Charloom needs it
$(CLUSTER_ENV)/.cluster: pyproject.toml requirements/build.txt requirements/runtime.txt $(CLUSTER_ENV)/bin/python
	@echo 'Installing Charloom and Ray into $(CLUSTER_ENV): Ray is large ...'
	@$(CLUSTER_ENV)/bin/python $(LOCKED) --requirement requirements/build.txt --requirement requirements/runtime.txt
	@$(CLUSTER_ENV)/bin/python $(PIP) install 'ray>=2.60'
	@$(CLUSTER_ENV)/bin/python $(PROJECT)
	@touch $@

$(RELEASE_ENV)/.release: requirements/release.txt $(RELEASE_ENV)/bin/python
	@echo 'Installing what a release needs into $(RELEASE_ENV) ...'
	@$(RELEASE_ENV)/bin/python $(LOCKED) --requirement requirements/release.txt
	@touch $@

# The first Python that really runs (a shim of pyenv may not), is new enough and can make environments.
# If the environment cannot be finished nothing is left of it, or the next try would take it for whole.
%/bin/python:
	@echo 'Making a Python environment in $* ...'
	@lacking=; \
	for python in $(or $(PYTHON),$(PYTHONS)); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || { lacking="$$lacking $$python"; continue; }; \
	    "$$python" -m venv --clear $* && exit; \
	    rm -rf $*; exit 1; \
	done; \
	if [ -n "$$lacking" ]; then \
	    echo "charloom:$$lacking cannot make environments: the modules venv and ensurepip are missing." \
	        'On Debian or Ubuntu: apt install python3-venv. Or name another: make PYTHON=/path/to/python3.12' >&2; \
	else \
	    echo 'charloom: needs Python 3.11 or newer, and found none that runs as: $(or $(PYTHON),$(PYTHONS)).' \
	        'Install one, or name it: make PYTHON=/path/to/python3.12' >&2; \
	fi; \
	exit 1
