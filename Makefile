# Every command of the project. `make demo` and `make test` do everything on a fresh machine.
PYTHON ?= python3.11
DATA ?= ../shared/data
VENV ?= .venv
SOAK_S ?= 3600
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo serve install test chaos lint types check audit image-check bench clean

demo: $(VENV)/.demo  ## install, then serve the embedded default
	$(BIN)/line-ood serve

serve: $(VENV)/.demo  ## the same with flags: make serve ARGS='--artifact my.safetensors --port 9000'
	$(BIN)/line-ood serve $(ARGS)

install: $(VENV)/.dev  ## everything a developer needs, into $(VENV)

test: $(VENV)/.dev  ## the whole test suite
	./scripts/install-test-tools
	$(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.dev  ## faults under traffic in their long form, an hour and a half with the soak: make chaos SOAK_S=600
	./scripts/install-test-tools
	rm -f build/chaos.jsonl
	CHAOS=long SOAK_S=$(SOAK_S) $(BIN)/python -m pytest tests/chaos --durations=0 $(ARGS)
	$(BIN)/python -m tests.chaos.figures

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml scoring calibration service

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test  ## what CI runs

audit: $(VENV)/.dev  ## look for known holes in dependencies; needs the internet itself, a mirror of PyPI does not do
	$(PYTHON) -m venv .audit
	.audit/bin/pip install --quiet pip-audit
	$(BIN)/pip freeze --exclude-editable > .audit/installed.txt
	.audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .audit/installed.txt

bench: $(VENV)/.dev  ## our server beside its peers, an hour; needs wrk: make bench DATA=folder-with-imagenet_sample
	$(BIN)/python -m benchmarks.serving $(DATA) $(ARGS)

image-check:  ## build the cpu image without an engine, start it, ask it; see docs/docker.md
	./scripts/image-check

clean:
	rm -rf $(VENV) .audit build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.demo
