# The five targets a person needs: install, demo, test, lint, format. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

export TF_CPP_MIN_LOG_LEVEL ?= 3

# tensorflow-io works with TensorFlow 2.17, which exists up to Python 3.12; later versions of Python
# take the newest TensorFlow without it. Exact versions are kept for Python 3.11 and later.
PYTHON_MINOR := $(shell $(PYTHON) -c 'import sys; print(sys.version_info[1])')
ifneq ($(filter 11 12,$(PYTHON_MINOR)),)
EXTRAS := io,
CONSTRAINTS := --constraint constraints.txt
else ifeq ($(PYTHON_MINOR),10)
EXTRAS := io,
NOTE := Python 3.10: the newest versions that pip finds are installed, not those of constraints.txt
else
CONSTRAINTS := --constraint constraints-latest.txt
NOTE := Python 3.$(PYTHON_MINOR): the newest TensorFlow is installed, without tensorflow-io (no s3:// in the trainer)
endif
PIP_INSTALL = $(BIN)/pip install --quiet $(CONSTRAINTS)

.DEFAULT_GOAL := help
.PHONY: help install demo flink spark experiments bench benchmark alternatives fuzz test test-slow test-latest lint docs format clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## The environment, in .venv

# Stamps are newer than what they were made from: a second call installs nothing.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py constraints.txt | $(BIN)/python
	@$(if $(NOTE),echo '$(NOTE)')
	$(PIP_INSTALL) --editable '.[$(EXTRAS)av,demo,serve,lite,stoi,completion]'
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[$(EXTRAS)av,demo,serve,lite,stoi,completion,test,lint,docs]'
	@# pesq has no wheel: where there is no compiler, that one metric stays not-a-number.
	@if command -v cc >/dev/null; then \
	  $(PIP_INSTALL) pesq; \
	else echo 'no C compiler: PESQ is not installed, its tests are skipped'; fi
	@touch $@

demo: $(VENV)/.installed  ## The whole path on an embedded corpus, in some minutes
	@BIN=$(BIN) DEMO=$(DEMO) sh tools/demo.sh

flink: $(VENV)/.installed  ## A local Flink cluster; ARGS='--input_dir=… --output_dir=…' runs a job on it
	@$(BIN)/python -m tools.flink $(ARGS)

spark: $(VENV)/.installed  ## A local Spark cluster; ARGS as of flink
	@$(BIN)/python -m tools.spark $(ARGS)

experiments: $(VENV)/.installed  ## Fixed assignment beside permutation-invariant training, in half an hour
	@BIN=$(BIN) sh tools/experiments.sh

# What is measured on: the demo's, unless told otherwise, as in CORPUS=--manifest=speech.csv.
CORPUS ?= --input_dir=$(DEMO)/corpus
DATASET ?= $(DEMO)/dataset

bench: $(VENV)/.tests  ## Speeds in some minutes, as ratios, and which have moved; on what the demo made
	$(BIN)/python -m benchmarks.preprocess $(CORPUS) --repeats=1
	$(BIN)/python -m benchmarks.input --data_dir=$(DATASET) --noalternatives --rounds=1
	$(BIN)/python -m benchmarks.separation --networks=lstm,tcn --noalternatives --rounds=3
	$(BIN)/python -m benchmarks.cold_start --noalternatives --rounds=1

benchmark: $(VENV)/.tests alternatives  ## All of docs/speed.md, beside PyTorch, asteroid and speechbrain; an hour, idle
	$(BIN)/python -m benchmarks.step --save
	$(BIN)/python -m benchmarks.cold_start --save
	$(BIN)/python -m benchmarks.separation --save
	$(BIN)/python -m benchmarks.input --data_dir=$(DATASET) --save
	$(BIN)/python -m benchmarks.preprocess $(CORPUS) --mixtures_per_utterance=4 --save
	$(BIN)/python -m benchmarks.quality --data_dir=$(DATASET) --save
	$(BIN)/python -m benchmarks.tables

# PyTorch and toolkits of the field, which benchmarks compare with; nothing else needs them.
.venv-alternatives/.installed: benchmarks/constraints-alternatives.txt
	$(PYTHON) -m venv .venv-alternatives
	.venv-alternatives/bin/pip install --quiet --no-deps --requirement $<
	@touch $@

alternatives: .venv-alternatives/.installed  ## What benchmarks compare with, in .venv-alternatives (6 GB)

$(VENV)/.fuzz: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[$(EXTRAS)av,demo,fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz  ## The readers against damaged input, SECONDS=60 each
	$(BIN)/python -m fuzz --seconds=$(or $(SECONDS),60)

PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup --durations=10

test: $(VENV)/.tests  ## Tests, but for those that take more than ten seconds each
	$(PYTEST) -m 'not slow' $(ARGS)

test-slow: $(VENV)/.tests  ## Those that take more than ten seconds each: large networks, Flink, Spark, object stores
	$(PYTEST) -m slow $(ARGS)

lint: $(VENV)/.tests  ## Style, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

docs: $(VENV)/.tests  ## The documentation as a site, in site/; links are checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo site/index.html

format: $(VENV)/.tests  ## Mends what can be mended by a machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The newest TensorFlow, without tensorflow-io: what most GPU machines have.
.venv-latest/.tests: setup.py constraints-latest.txt
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/pip install --quiet --constraint constraints-latest.txt --editable '.[av,demo]' \
	  pytest pytest-timeout pytest-xdist mir_eval pystoi
	@touch $@

test-latest: .venv-latest/.tests  ## The path through all rooms on the newest TensorFlow
	.venv-latest/bin/python -m pytest --numprocesses=2 --dist=loadgroup $(or $(ARGS),tests/end_to_end tests/models tests/pipeline/dataset/shards_test.py --ignore=tests/end_to_end/runners_test.py)

clean:  ## Removes environments and what the demo made
	rm -rf $(VENV) .venv-latest .venv-alternatives $(DEMO) *.egg-info build dist site
