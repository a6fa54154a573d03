# make quickstart | test | lint | bench | prove | clean.   `make help` says more.
PYTHON ?= python3
VENV   ?= .venv
PIP     = $(VENV)/bin/python -m pip --disable-pip-version-check
RUN     = $(VENV)/bin/python

# Images often set this. Nothing is compiled at installation, so hundreds of short-lived processes would each compile all they import.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint docs bench bench-migrate bench-verify bench-backup bench-export bench-sync bench-stores bench-embed bench-remap bench-identities prove clean
.NOTPARALLEL: bench

help:
	@echo "make quickstart   set up, migrate 2,421 real documents, verify, search them (about a minute)"
	@echo "make test         set up and run every test, JOBS=3 at a time; what could not run is named at the end"
	@echo "make lint         ruff, mypy --strict, import-linter"
	@echo "make docs         write docs/reference from the code, type the tutorial's commands anew (make test compares both)"
	@echo "make bench        measure against the floors and the vendors' clients (ROWS='500000 2000000' STORE_ROWS=100000 STORES='chroma postgres' ROUNDS=3 DOCUMENTS=60000 UUIDS=5000000 SYNCS=20); bench-migrate, -verify, -backup, -export, -sync, -stores, -embed, -remap, -identities are its parts"
	@echo "make prove        the long proofs at full size: 500,000 rows, 20 kills; 50,000 rows of each store; 60,000 documents embedded (PROOFS='tests/scenarios/test_kill.py ...': some of them)"
	@echo "make clean        remove the environment and what the quickstart wrote"

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "there is no $(PYTHON) on the PATH: install Python 3.11 to 3.13 (apt-get install python3), or name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "cfray needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Give another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing: install the package python3-venv (apt-get install python3-venv), then run make again"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q --no-compile -c constraints.txt -e .
	@touch $@

# contextframe is tested against and not depended on: its metadata asks for `lance`, an unrelated package that shadows pylance's module.
# wordllama lends its weights to the benchmark of maps; its own code is not run.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install -q --no-compile -c constraints.txt -e '.[dev]'
	$(PIP) install -q --no-deps contextframe==0.1.1 wordllama==0.4.0.post1
	@touch $@ $(VENV)/.base

quickstart: $(VENV)/.base
	$(VENV)/bin/cfray plan examples/quickstart/job.yaml
	$(VENV)/bin/cfray migrate examples/quickstart/job.yaml
	$(RUN) examples/quickstart/search.py out/wordnet.lance a small dog
	@echo
	@echo "report: $(CURDIR)/out/wordnet.lance.cfray/report.json"

# Processes share the files, and all files of one server are one: whichever is free takes the next
# (tests/conftest.py).  Each has one Ray, which its tests' runs join.
JOBS ?= 3
test: $(VENV)/.dev
	$(RUN) -m pytest -q -n $(JOBS) --dist loadscope --no-loadscope-reorder --durations=30 --durations-min=5

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.base
	$(RUN) -m docs.generate
	$(RUN) -m docs.retype

ROWS       ?= 500000 2000000
STORE_ROWS ?= 100000
STORES ?= chroma elasticsearch milvus opensearch postgres weaviate
ROUNDS     ?= 3
DOCUMENTS  ?= 60000
UUIDS      ?= 5000000
SYNCS      ?= 20
bench: bench-migrate bench-verify bench-backup bench-export bench-sync bench-stores bench-embed bench-remap bench-identities

bench-migrate: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.migrate --rows $(ROWS) --rounds $(ROUNDS)

bench-verify: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.verify --rows $(ROWS) --rounds $(ROUNDS)

bench-backup: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.backup --rows $(ROWS) --rounds $(ROUNDS)

bench-export: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.export --rows $(ROWS) --rounds $(ROUNDS)

bench-sync: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.sync --rows $(firstword $(ROWS)) --rounds 1 --syncs $(SYNCS)

bench-stores: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.stores --rows $(STORE_ROWS) --rounds $(ROUNDS) --stores $(STORES)
	$(RUN) -m tests.benchmarks.postgres --rows $$(( 10 * $(STORE_ROWS) ))

bench-embed: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.embed --documents $(DOCUMENTS) --naive $$(( $(DOCUMENTS) / 20 ))

bench-remap: $(VENV)/.dev
	@[ $(DOCUMENTS) -lt 45000 ] || $(RUN) -m tests.benchmarks.remap

bench-identities: $(VENV)/.dev
	$(RUN) -m tests.benchmarks.identities --rows $(UUIDS) --rounds $(ROUNDS)

PROOFS ?= tests/scenarios tests/test_outsider.py
prove: $(VENV)/.dev
	CFRAY_PROVE=1 $(RUN) -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder --durations=30 $(PROOFS)

clean:
	rm -rf $(VENV) out
