# Each target sets up .venv when it is missing, so every one of them works in a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test test-all test-oldest lint docs docs-serve wheel bench gpu results-report clean

help:  ## shows this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "supple needs Python 3.10 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[lab,dev]'
	@touch $@

demo: $(READY)  ## loss of plasticity and its cures on permuted MNIST, about a minute
	$(BIN)/supple demo

test: $(READY)  ## the tests that take a few minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(READY)  ## all tests, also the slow ones and those for a GPU where there is one
	$(BIN)/python -m pytest -m "not packaging" -n 2 --dist loadfile

test-oldest: .venv-oldest/.ready  ## the library with the oldest versions that it supports
	.venv-oldest/bin/python -m pytest tests/functional tests/structure tests/methods tests/metrics tests/optim

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check --constraint constraints-oldest.txt --editable . \
		hypothesis pytest pytest-timeout scipy
	@touch $@

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --constraint constraints-docs.txt \
		--editable '.[docs]'
	@touch $@

docs: .venv/.docs  ## the site, into site; a warning or a dead link is an error
	$(BIN)/mkdocs build --strict --quiet

docs-serve: .venv/.docs  ## shows the site while its pages are written
	$(BIN)/mkdocs serve

wheel: $(READY)  ## what is published, into dist, tried in empty environments
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m pytest -m packaging tests/test_packaging.py

bench: $(READY)  ## network steps per second of populations against plain training loops
	$(BIN)/python benchmarks/population.py

gpu: $(READY)  ## tests, speed and memory on a GPU in 8 minutes, into supple-gpu
	$(BIN)/python benchmarks/gpu.py

results-report: $(READY)  ## pages of the results of real runs, in supple-report
	$(BIN)/supple report results/small results/small_layer_norm results/large results/large_layer_norm results/large_300 results/swr_variants_small results/swr_variants_large --out supple-report/permuted_mnist
	$(BIN)/supple report results/sweep_small --out supple-report/sweep
	$(BIN)/supple report results/methods --out supple-report/methods
	$(BIN)/supple report results/incremental_regular results/incremental_reparameterized --out supple-report/incremental
	$(BIN)/supple leaderboard --no-run --beside results/leaderboard --out supple-report/leaderboard

clean:  ## removes .venv and what tools left behind
	rm -rf .venv .venv-oldest dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
