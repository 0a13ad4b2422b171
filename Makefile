# One command each. PYTHON is only used to make .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := envs/lock.txt

.PHONY: install install-dev run toy test lint bench docs lock clean

# Versions come from the lock file; the extras say which of them a task needs.
install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hedflow needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Two distributions live here: hedflow, and in worksteal/ the executor, which installs without hedflow and torch.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml worksteal/pyproject.toml $(LOCK)
	$(BIN)/pip install --quiet --constraint $(LOCK) --editable './worksteal[batch]' --editable '.[workflow,train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint $(LOCK) --editable './worksteal[mpi,figure,batch,staging]' --editable '.[dev]'
	@touch $@

run: install
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake
	@$(BIN)/hedflow summary

toy: install
	$(BIN)/hedflow simulate results-toy/world
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --configfile config/toy.yaml
	@$(BIN)/hedflow summary --results results-toy

test: install-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 20 -rs

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check workflow rules
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

bench: install-dev
	for b in benchmarks/bench_*.py; do $(BIN)/python $$b || exit 1; done

# config.yaml, config/schema.json and docs/config.md from the configuration's models
docs: install
	$(BIN)/hedflow config

# Newest versions that pyproject.toml allows. torch's local build tag (+cpu) is dropped: elsewhere it is another.
lock: install-dev
	$(BIN)/pip-compile --quiet --all-extras --strip-extras --no-emit-find-links --no-emit-index-url --no-header \
	  --no-annotate --resolver=backtracking --output-file $(LOCK).new pyproject.toml worksteal/pyproject.toml
	sed -e 's/+cpu//' -e '/^hedflow @/d' -e '/^snakemake-executor-plugin-worksteal @/d' -e '/^#/d' $(LOCK).new > $(LOCK) && rm $(LOCK).new
	sed -i '/^      - [a-z]/d' envs/cpu.yaml envs/cuda.yaml envs/xpu.yaml
	sed -n 's/^[a-z]/      - &/p' $(LOCK) >> envs/cpu.yaml
	sed -n -e '/^mpi/d' -e 's/^[a-z]/      - &/p' $(LOCK) >> envs/cuda.yaml
	sed -n -e '/^mpi/d' -e 's/^torch==.*/&+xpu/' -e 's/^[a-z]/      - &/p' $(LOCK) >> envs/xpu.yaml

clean:
	rm -rf results results-toy .snakemake
