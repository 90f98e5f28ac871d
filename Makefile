# One everyday word per job; `make help` lists them. All but `clean` set up what they need.

IMAGES ?= $(or $(EDGEWAKE_STATE),/var/lib/edgewake)/images
PYTHON ?= python3

export PYTHON
export PATH := $(PATH):/usr/sbin:/sbin

BIN := .venv/bin
# Guests and networks are the system libvirt's, so what asks for them runs as root. Nothing that
# root runs may leave files of root's in a user's checkout.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo env PATH='$(PATH)' PYTHONDONTWRITEBYTECODE=1 \
	HYPOTHESIS_STORAGE_DIRECTORY=/run/edgewake-hypothesis)
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint format docs bench screenshots setup libvirtd image xenbed clean

help: ## list these jobs
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: setup libvirtd ## a DNS query boots a real guest, and it answers
	$(AS_ROOT) $(BIN)/edgewake demo

test: setup libvirtd ## every test, also those that boot real guests
	$(AS_ROOT) scripts/test.sh

lint: setup ## what must be clean: ruff, its format, mypy --strict
	bash -n scripts/*.sh .ci/run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## write the code the way lint wants it
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

docs: setup ## check the documentation: links, commands, examples
	$(PYTEST) tests/test_docs.py tests/test_examples.py

bench: setup libvirtd ## measure; prints tables
	@scripts/setup.sh bench
	@set -e; for name in cold_path wakes wakes_xen budget tracing traffic links images dns_warm dns_front \
		web_load memory xen routers reroute placement_scale placement_warm; do \
		echo "==> benchmarks/$$name.py"; $(AS_ROOT) $(BIN)/python -m benchmarks.$$name; done

screenshots: setup ## pictures of every page of the dashboard, for README and docs
	$(BIN)/python -m tests.web.screenshots docs/screenshots

setup: ## install what is missing: Debian packages, a virtual environment
	@scripts/setup.sh

libvirtd: ## start this machine's libvirt unless it runs
	@scripts/libvirtd.sh start

image: setup ## build the sample images: hello and the Linux guest
	@[ -d $(dir $(IMAGES)) ] || $(AS_ROOT) install -d -m 0711 $(dir $(IMAGES))
	@[ -d $(IMAGES) ] || $(AS_ROOT) install -d -m 0755 $(IMAGES)
	@$(AS_ROOT) $(BIN)/python -m images.build $(IMAGES)

xenbed: setup ## a Xen host to try things on, emulated
	@$(AS_ROOT) $(BIN)/python -m tests.xenbed start

clean: ## remove what these jobs made in this folder
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
