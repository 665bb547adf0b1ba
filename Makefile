# One command per task; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A file's tests stay together: they share a cluster, and some tell one story.
TOGETHER := -n 2 --dist loadfile

.PHONY: image help test quick nightly check chaos e2e bench demo demo-down cluster cluster-down cni docs generate lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): requirements-dev.lock pyproject.toml
	@echo "tortie: preparing the Python environment in $(VENV) (about half a minute, once)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tortie: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; name one with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

test: $(READY) check ## every test, `make check` included
	$(BIN)/python -m pytest $(TOGETHER)

quick: $(READY) check ## the inner loop: checks and the pure tests
	$(BIN)/python -m pytest -n 2 tests/addressing tests/api

nightly: $(READY) check ## the long forms: many more examples
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest $(TOGETHER)

check: $(READY) ## formatting, lint, types, import arrows, generated files, chart
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.chart.lint
	@if command -v go >/dev/null; then unformatted=$$(gofmt -l cni tests/cni) \
		&& { [ -z "$$unformatted" ] || { echo "gofmt -w $$unformatted"; exit 1; }; } && cd cni && go vet ./...; fi

cni: ## build the CNI plugin, static, into cni/bin/tortie (needs Go)
	cd cni && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/tortie .

image: $(READY) ## build the image with buildah, podman or docker; BASE=debian where no registry is reached
	image/build docker.io/library/tortie:$$(awk '/^appVersion:/ { print $$2 }' helm/tortie/Chart.yaml) build/tortie.tar

demo: $(READY) ## pools, blocks, and pods that reach each other; KEEP=1 leaves it running
	@$(BIN)/python -m tests.cluster.demo $(if $(KEEP),--keep)

demo-down: $(READY) ## end what `make demo KEEP=1` left running
	@$(BIN)/python -m tests.cluster.demo --down

chaos: $(READY) ## faults on a real cluster, then an audit; MINUTES=10 SEED=1 NODES=3; needs root
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1) --nodes $(or $(NODES),3)

e2e: $(READY) ## Kubernetes' own end-to-end tests, by a regular expression of their names; FOCUS=Netpol NODES=3; needs root
	@$(BIN)/python -m tests.e2e --focus "$${FOCUS:-Netpol}" --nodes $(or $(NODES),3)

cluster: $(READY) ## a real cluster in network namespaces, with pods; NODES=3 SUBNETS=1; needs root
	@$(BIN)/python -m tests.cluster start --nodes $(or $(NODES),3) --subnets $(or $(SUBNETS),1)

cluster-down: $(READY) ## remove every trace of it
	@$(BIN)/python -m tests.cluster stop

generate: $(READY) ## make crds/, the chart's CRD template and docs/reference from what they describe
	$(BIN)/python -m tortie.api.kinds crds helm/tortie/templates
	$(BIN)/python -m tests.docs.reference docs/reference
	$(BIN)/python -m tortie.cli.metrics docs/reference/metrics.md

docs: $(READY) ## build the documentation into build/site; a link that leads nowhere fails it
	@$(BIN)/mkdocs build --strict  # not --quiet: that hides warnings from --strict as well
	@echo "tortie: open build/site/index.html; its search needs a server: $(BIN)/python -m http.server -d build/site"

bench: $(READY) ## the figures, one line each; ONLY=glob picks by name
	$(BIN)/python -m tests.bench $(if $(ONLY),'$(ONLY)')

lock: $(READY) ## make the lock files anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -q -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -q --extra dev -o requirements-dev.lock

clean: ## remove the Python environment and what the linters cached
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
