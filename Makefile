# Every target creates what it needs: a virtual environment with pinned dependencies. Only Python >= 3.11 is assumed.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
READY = $(VENV)/.ready
READY_DOCS = $(VENV)/.ready-docs

.PHONY: sweep test check lint docs docs-check bench bench-search bench-drift conformance faults soak mlflow clean

# The main job: the quickstart sweep on an embedded cluster. Run it again and it trains nothing that is complete.
sweep: $(READY)
	$(RUN) -m orchestrator sweep

# Some processes at once; what shares a cluster is in one of them (tests/conftest.py). One that dies ends the run: the
# others would wait for ever.
test: $(READY)
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder --max-worker-restart 0

# What CI runs.
check: lint test docs

lint: $(READY)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# The site, in build/docs. A broken link fails, and so does a page that the code no longer fits.
docs: $(READY_DOCS)
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet --builder html docs build/docs
	@echo "open build/docs/index.html"

# Every command of README and docs, unshortened, so every sweep trains in full; DATA names a folder with MNIST.
docs-check: $(READY_DOCS)
	$(RUN) -m tests.docs --data-dir $(DATA)

# What is timed, as ratios in one run. DATA names a folder with MNIST in torchvision's layout.
DATA ?= $(HOME)/.cache/continual-sweep
bench: $(READY) $(VENV)/avalanche/.ready
	$(RUN) -m benchmarks --data-dir $(DATA) --avalanche $(VENV)/avalanche/bin/python

# What small networks are timed beside, in an environment of its own.
$(VENV)/avalanche/.ready: $(READY)
	$(PYTHON) -m venv $(VENV)/avalanche
	$(VENV)/avalanche/bin/python -m pip install --quiet --disable-pip-version-check 'avalanche-lib==0.6.0' 'torch>=2.13,<3'
	@touch $@

# How well the search decides and what it spends, replayed on recorded trials (about 10 minutes on 2 cores).
TABLE ?= benchmarks/recorded/digits.parquet
bench-search: $(READY)
	$(RUN) -m benchmarks.search --table $(TABLE)

# How well drift detectors find known drifts, and how often they see one in vain (about 15 minutes on 2 cores).
bench-drift: $(READY)
	$(RUN) -m benchmarks.drift --workers 2

# Every method against its invariants, then published numbers beside ours on real data (about 40 minutes on 2 cores).
conformance: $(READY)
	$(RUN) -m pytest tests/conformance --conformance all
	$(RUN) -m benchmarks.published --data-dir $(DATA)

# Kills, full and refusing disks, dead workers and nodes: the tables must be those of an undisturbed sweep.
# FAULTS='--seed N' repeats a run that printed N.
faults: $(READY)
	$(RUN) -m tests.faults $(FAULTS)

# 2,000 short trials: memory and time per trial at the end against the start.
soak: $(READY)
	$(RUN) -m tests.faults --soak

# A real MLflow server for the tests of --log-to, which are skipped without: it needs an earlier pyarrow than we have.
mlflow: $(VENV)/mlflow/.ready

$(VENV)/mlflow/.ready: $(READY)
	$(PYTHON) -m venv $(VENV)/mlflow
	$(VENV)/mlflow/bin/python -m pip install --quiet --disable-pip-version-check 'mlflow==3.17.2'
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,report,onnx,mlflow,tensorboard,wandb]'
	@touch $(READY)

$(READY_DOCS): $(READY)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $(READY_DOCS)

clean:
	rm -rf $(VENV) build/docs docs/reference .mypy_cache .ruff_cache .pytest_cache
