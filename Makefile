# Everything runs from a fresh clone: each target first makes .venv if it is not there. `make help` lists the targets.
# Relative paths only: the folder of the clone may have any name.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo app screenshots test chaos check docs bench experiments clean chromium

PYTHON ?= python3
TORCH  ?= torch==2.15.0 torchvision==0.29.2
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
READY  := .venv/.ready
BROWSER := $(wildcard tests/test_app*.py tests/chaos/test_app*.py)

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

demo: $(READY) ## draw the demo set with known errors, audit it, load it into FiftyOne
	@$(BIN)/audit-plugin demo --out demo

app: $(READY) ## link the plugin into FiftyOne, then the demo, and the App on its flagged samples
	@$(BIN)/audit-plugin link
	@$(BIN)/audit-plugin demo --out demo --app

screenshots: $(READY) chromium ## take the pictures of the README, from the photographs beside the project
	@$(BIN)/python docs/screenshots.py

# First what drives the App in a browser, with the machine to itself, then the rest, also where the first part fails. Without
# a browser pytest finds no test in the first part, and exits with 5.
test: $(READY) chromium ## all tests, those with a database and a browser included
	@status=0; $(BIN)/python -m pytest $(BROWSER) || status=$$?; \
	[ $$status != 5 ] || status=0; \
	$(BIN)/python -m pytest -n 3 --durations=20 --durations-min=20 --dist loadscope --no-loadscope-reorder $(BROWSER:%=--ignore=%) || status=$$?; \
	exit $$status

chaos: $(READY) chromium ## attack the code: crash points, races, corruption, hostile inputs (long)
	@AUDIT_CHAOS=long $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder tests/chaos

check: $(READY) ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(READY) ## the pages of docs/ as a site in site/, with every link checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html; with its search: python3 -m http.server --directory site"

bench: $(READY) ## measure detection against its rivals on the benchmark sets (two or three hours, resumable)
	@$(BIN)/python -m benchmarks.detection run
	@$(BIN)/python -m benchmarks.detection photographs || echo "the photographs were not measured: they need Debian's packages"
	@$(BIN)/python -m benchmarks.readme

experiments: $(READY) ## the MultiMem experiments of docs/multimem.md (an hour, 730 MB to download)
	@for name in groups misaligned noise regroup removal reliability robustness corruptions; do \
	  $(BIN)/python -m benchmarks.multimem.$$name || exit 1; done
	@$(BIN)/python -m benchmarks.multimem.groups --train towers
	@$(BIN)/python -m benchmarks.readme

clean: ## remove what the other targets made, except .venv
	@rm -rf demo artifacts build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "$(PYTHON) is older than Python 3.11, which the pinned set-up needs: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "[1/4] virtual environment in .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; echo \
	  "cannot create a virtual environment: install Python's venv module (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PIP) --upgrade pip
	@echo "[2/4] $(TORCH) (up to 3 GB, some minutes)"
	@$(PIP) $(TORCH)
	@echo "[3/4] audit-plugin and what it needs (about 1 GB)"
	@$(PIP) -c constraints.txt -e '.[app,cpu,demo,dev,docs]'
	@echo "[4/4] check, and a database for FiftyOne if it came without one"
	@$(BIN)/audit-plugin doctor --fix
	@touch $@

# The browser test needs a Chromium; it is skipped without one.
chromium:
	@if command -v chromium chromium-browser google-chrome >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "installing Chromium for the browser test"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "no Chromium found, so the browser test is skipped: install the package chromium to run it"; fi
