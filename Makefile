# Every target sets up its own virtual environment on first use: only Python 3 and make are needed.
#   make test PYTHON=python3.12 VENV=.venv312     another interpreter, another environment
#   make bench DATA=FOLDER                        with CIFAR-10's binary files instead of digits
#   make test WORKERS=8 PYTEST_ARGS="-k relu"     more processes, fewer tests

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
DATA ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The test processes share the cores, so each computes on one thread.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: docs jax integrations field-suites gpu screenshots upgrade-demo field bench-hunt help setup demo test test-slow fuzz lint format typecheck bench bench-sets agreement atlas-214 docs-check build clean tokens

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make the virtual environment and install clarke into it, editable

# The stamp is newer than what it was installed from, or it is installed again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "clarke needs Python 3.10 or newer: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,demo,plot,fast]'
	@touch $@

demo: $(STAMP) ## Train small networks under audit and show what it finds
	$(BIN)/clarke demo

test: $(STAMP) ## Run the tests, without the slow ones
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(STAMP) ## Run the slow tests
	$(PYTEST) -m slow $(PYTEST_ARGS)

gpu: $(STAMP) ## Run the core tests and time audits on an accelerator; without one, say so
	$(ONE_THREAD) timeout 360 $(BIN)/python -m pytest tests/device tests/harm/test_brought_home.py $(PYTEST_ARGS)
	timeout 100 $(BIN)/python benchmarks/device.py

# The libraries that train have an environment of their own: they bring hundreds of megabytes.
VENV_LIBRARIES := .venv-integrations
STAMP_LIBRARIES := $(VENV_LIBRARIES)/.installed

$(STAMP_LIBRARIES): pyproject.toml constraints.txt
	@test -x $(VENV_LIBRARIES)/bin/python || $(PYTHON) -m venv $(VENV_LIBRARIES)
	$(VENV_LIBRARIES)/bin/python -m pip install --quiet -c constraints.txt \
	  -e '.[dev,lightning,transformers,tensorboard]'
	@touch $@

integrations: $(STAMP_LIBRARIES) ## Install Lightning, Transformers, Accelerate apart, and test with them
	$(ONE_THREAD) $(VENV_LIBRARIES)/bin/python -m pytest tests/integrations -m "slow or not slow" $(PYTEST_ARGS)

# Other people's losses and layers, under both gradchecks.
VENV_FIELD := .venv-field
STAMP_FIELD := $(VENV_FIELD)/.installed
FIELD := kornia==0.9.0 entmax==1.3 torchmetrics==1.9.0 torchdiffeq==0.2.5 gpytorch==1.15.2 \
  linear_operator==0.6.1 pyro-ppl==1.9.2 e3nn==0.6.0 torch_geometric==2.8.1 pytorch-metric-learning==2.9.0

$(STAMP_FIELD): pyproject.toml constraints.txt
	@test -x $(VENV_FIELD)/bin/python || $(PYTHON) -m venv $(VENV_FIELD)
	$(VENV_FIELD)/bin/python -m pip install --quiet -c constraints.txt -e . $(FIELD)
	@touch $@

field-suites: $(STAMP_FIELD) ## Losses and layers of ten libraries, apart: writes docs/field-suites.md
	mkdir -p runs
	$(ONE_THREAD) $(VENV_FIELD)/bin/python benchmarks/suites.py --out runs/field-suites.md
	mv runs/field-suites.md docs/field-suites.md

fuzz: $(STAMP) ## Try CLARKE_FUZZ random programs of each kind, default 500
	CLARKE_FUZZ=$${CLARKE_FUZZ:-500} $(PYTEST) -m fuzz $(PYTEST_ARGS)

lint: $(STAMP) ## Check the format and the lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(STAMP) ## Format, and fix what lint can fix by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

typecheck: $(STAMP) ## Check the types of src/ with mypy, strictly
	$(BIN)/mypy

bench: $(STAMP) ## Run the benchmarks; DATA=FOLDER with CIFAR-10's binary files
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/run.py $(if $(DATA),--data '$(DATA)')

bench-sets: $(STAMP) ## Time exact sets with up to 362 880 elements; POLYMAKE=SECONDS beside polymake
	$(ONE_THREAD) $(BIN)/python benchmarks/sets.py $(if $(POLYMAKE),--polymake '$(POLYMAKE)')

field: $(STAMP) ## Hunt over torch's own losses and activations, and write docs/field.md
	mkdir -p runs
	$(ONE_THREAD) $(BIN)/python benchmarks/field.py --seconds 15 > runs/field.md
	mv runs/field.md docs/field.md

bench-hunt: $(STAMP) ## Hunt for the known faults, and for planted ones in 60 random programs
	$(ONE_THREAD) $(BIN)/python benchmarks/hunting.py faults
	$(ONE_THREAD) $(BIN)/python benchmarks/hunting.py planted 30
	$(ONE_THREAD) $(BIN)/python benchmarks/hunting.py none 30

agreement: $(STAMP) ## Compare 50 steps of each network with the naive reference; DATA=FOLDER
	$(ONE_THREAD) $(BIN)/python benchmarks/agreement.py $(if $(DATA),--data '$(DATA)')

# The next version of torch has an environment of its own, under the same pins but torch's. What it
# changes goes into docs/.
TORCH_214 := 2.14.1
VENV_214 := .venv-torch214
STAMP_214 := $(VENV_214)/.installed
CORE_TESTS := $(addprefix tests/,atlas check kinks decide grad subdifferential testing audit fast theorems)

$(STAMP_214): pyproject.toml constraints.txt
	@test -x $(VENV_214)/bin/python || $(PYTHON) -m venv $(VENV_214)
	sed 's/^torch==.*/torch==$(TORCH_214)/' constraints.txt > $(VENV_214)/constraints.txt
	$(VENV_214)/bin/python -m pip install --quiet -c $(VENV_214)/constraints.txt -e '.[dev]'
	@touch $@

atlas-214: $(STAMP) $(STAMP_214) ## Run the atlas and the core tests on torch 2.14, and write what moved
	mkdir -p runs
	$(ONE_THREAD) $(BIN)/clarke ops --json > runs/ops.json
	$(ONE_THREAD) $(VENV_214)/bin/clarke ops --diff runs/ops.json --markdown > runs/ops-214.md
	mv runs/ops-214.md docs/ops-214.md
	$(ONE_THREAD) $(VENV_214)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(CORE_TESTS) \
	  $(PYTEST_ARGS)

upgrade-demo: $(STAMP) $(STAMP_214) ## Which of 30 tests change gradient or verdict from torch 2.13 to 2.14
	mkdir -p runs
	-$(ONE_THREAD) $(BIN)/python -m pytest -q -p no:cacheprovider -c /dev/null --rootdir benchmarks/upgrade \
	  benchmarks/upgrade --clarke-record runs/suite-213.json > runs/suite-213.txt
	-$(ONE_THREAD) $(VENV_214)/bin/python -m pytest -q -p no:cacheprovider -c /dev/null --rootdir benchmarks/upgrade \
	  benchmarks/upgrade --clarke-record runs/suite-214.json > runs/suite-214.txt
	$(BIN)/clarke report runs/suite-213.json runs/suite-214.json

# Gradients of another framework have an environment of their own, too.
VENV_JAX := .venv-jax
STAMP_JAX := $(VENV_JAX)/.installed

$(STAMP_JAX): pyproject.toml constraints.txt
	@test -x $(VENV_JAX)/bin/python || $(PYTHON) -m venv $(VENV_JAX)
	$(VENV_JAX)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,jax]'
	@touch $@

jax: $(STAMP_JAX) ## Judge gradients of JAX, the documentation's example among them
	$(ONE_THREAD) $(VENV_JAX)/bin/python -m pytest tests/hunt/test_jax.py $(PYTEST_ARGS)

screenshots: $(STAMP) ## Take the pictures of pages and terminal for docs/images (needs Chromium)
	$(ONE_THREAD) $(BIN)/python benchmarks/screenshots.py

# The site has an environment of its own: it reads the sources, and needs no torch.
VENV_DOCS := .venv-docs
STAMP_DOCS := $(VENV_DOCS)/.installed

$(STAMP_DOCS): constraints.txt
	@test -x $(VENV_DOCS)/bin/python || $(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/python -m pip install --quiet -c constraints.txt mkdocs-material 'mkdocstrings[python]'
	@touch $@

docs: $(STAMP_DOCS) ## Build the site into build/site, strict about links
	NO_MKDOCS_2_WARNING=1 $(VENV_DOCS)/bin/mkdocs build --strict
	@echo build/site/index.html

tokens: $(STAMP) ## Count the program by layer, beside the last release; and how it grew
	$(BIN)/python benchmarks/tokens.py --history 6

docs-check: $(STAMP) ## Check links and code blocks in the documentation, and the list of layers
	$(ONE_THREAD) $(BIN)/python -m pytest tests/test_docs.py tests/test_architecture.py $(PYTEST_ARGS)

build: $(STAMP) ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove caches and build output; keep the environment and runs/
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
