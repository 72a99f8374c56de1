# `make` alone lists the targets. Every command is echoed as it can be repeated by hand.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && { echo $$name; break; }; done)
PIP_FLAGS ?=# for the set-up, e.g. --extra-index-url https://download.pytorch.org/whl/cpu
BIN := .venv/bin
READY := .venv/.ready# newer than what it was made from: set-up runs once
DEMO_READY := .venv/.ready-demo# the same with what the demo needs, which takes a minute less

# Some machines tell Python to keep no compiled modules. Each of a thousand processes would compile them anew.
unexport PYTHONDONTWRITEBYTECODE

DEMO_MODELS := mobilevig_ti,mobilevig_s,affnet_et
DEMO_DB := demo/latency.db
DEMO_PAGE := demo/report.html

.PHONY: help venv system demo test test-all lint bench findings

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

system: ## install what the tests need of the system, or name all that is missing
	.ci/system-packages

venv: $(READY) ## set up .venv with everything the tests need: every target's tools

$(READY): EXTRA := test
$(DEMO_READY): EXTRA := demo
$(READY) $(DEMO_READY): pyproject.toml .ci/constraints.txt
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(NEW_ENOUGH)' || \
		{ echo 'edgevit needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c .ci/constraints.txt -e '.[$(EXTRA)]'
	@# timm wants torchvision, whose wheel must match the build of torch. The tests have a stand-in for it.
	@test $(EXTRA) != test || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		-c .ci/constraints.txt timm
	@touch $@

demo: $(DEMO_READY) ## fold, export, prove and time three models here, then choose one for a budget in their middle
	@mkdir -p demo
	$(BIN)/edgevit sweep --models $(DEMO_MODELS) --targets onnx --device local --threads 1 --percentile 90 \
		--out demo/artifacts --db $(DEMO_DB) || echo 'a model is missing: the lines above say why'
	@budget=$$($(BIN)/python docs/examples/middle_budget.py $(DEMO_DB)); PS4=; set -x; \
	$(BIN)/edgevit choose --device local --max-latency $$budget --db $(DEMO_DB)
	$(BIN)/edgevit report --device local --artifacts demo/artifacts --out $(DEMO_PAGE) --db $(DEMO_DB)
	@echo 'the page, for any browser: file://$(CURDIR)/$(DEMO_PAGE)'

lint: $(READY) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers 2

# Two workers, each with its share of the cores; the tests of a file go to one of them, long files first
# (tests/support/scheduling.py).
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

test: system lint ## check everything that takes seconds
	$(BIN)/pytest -m 'not slow' $(WORKERS)

test-all: system lint ## check everything, the tests that take minutes too
	EDGEVIT_EXAMPLES=50 $(BIN)/pytest $(WORKERS)

bench: $(READY) ## run every benchmark; each prints one JSON object
	@for file in $(filter-out benchmarks/%common.py,$(wildcard benchmarks/*.py)); do \
		echo "$(BIN)/python $$file" >&2; $(BIN)/python "$$file"; \
	done

findings: ## show what surprised us in other people's tools; each script installs packages of its own
	@for file in findings/*.sh; do echo "$$file"; PYTHON='$(PYTHON)' "$$file"; done
