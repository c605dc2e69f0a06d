# Every target makes .venv by itself and reuses it.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install demo test test-core test-adapters lint bench clean

# torch first: with it in place torchvision adds no second build of it.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade-strategy only-if-needed torch==2.13.0
	$(BIN)/pip install --quiet torchvision==0.28.0 -e '.[all,dev]'
	@touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/python -m benchmarks.demo

# A worker per core, each on one thread (torch's threads spin while they wait for each other), and one more: tests of
# NNI's experiments wait for minutes. Files in their order: by number of tests, NNI's few and long ones would come last.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(( $$($(BIN)/python -c 'import os; print(os.cpu_count())') + 1 )) \
		--dist loadfile --no-loadscope-reorder

# The core and torch-pruning on any Python that runs torch, without the other toolkits.
CORE := .venv-core
NOT_CORE := benchmarks cli emulation nni training tvm_backend test_adapters.py test_report.py test_zoo.py \
	test_zoo_heads.py test_other_convolutions.py torch_pruning/test_integrations.py
test-core:
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/pip install --quiet -e '.[torch-pruning]' pytest pytest-timeout pytest-xdist hypothesis
	OMP_NUM_THREADS=1 $(CORE)/bin/python -m pytest -n auto --dist loadfile -k 'not what_users_copy' $(NOT_CORE:%=--ignore=tests/%)

# Both adapters on another Python, with torch's current release: make test-adapters PYTHON=python3.13
ADAPTERS := .venv-adapters-$(notdir $(PYTHON))
test-adapters:
	$(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/pip install --quiet torch
	$(ADAPTERS)/bin/pip install --quiet torchvision -e '.[all]' timm pytest pytest-timeout pytest-xdist hypothesis
	OMP_NUM_THREADS=1 $(ADAPTERS)/bin/python -m pytest -n auto --dist loadfile tests/torch_pruning tests/nni \
		--ignore=tests/nni/experiment/test_endings.py --ignore=tests/nni/experiment/test_page_in_a_browser.py \
		--ignore=tests/nni/experiment/test_remote.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

# The engines we are compared with get environments of their own, in .peers/.
bench: install
	$(BIN)/python -m benchmarks.latency setup
	$(BIN)/python -m benchmarks --all

clean:
	rm -rf $(VENV) $(CORE) .venv-adapters-* build dist *.egg-info
