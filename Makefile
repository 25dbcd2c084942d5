# Every target makes what it needs and is quick the second time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
SITE := -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -b html docs docs/_build/html
RUN := $(CURDIR)/$(BIN)/papermill
export MPLBACKEND = Agg

.PHONY: demo check test test-all test-lowest bench docs lab figures clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	mkdir -p $(VENV)/etc/ipython
	echo 'c.IPKernelApp.log_level = "ERROR"' > $(VENV)/etc/ipython/ipython_kernel_config.py  # local ports need no encryption
	touch $@

demo: $(VENV)/installed
	$(BIN)/python bench/demo.py

check: $(VENV)/installed
	$(BIN)/ruff format --check mvf tests bench docs/*.py
	$(BIN)/ruff check mvf tests bench docs/*.py
	$(BIN)/mypy mvf

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --extra test --extra docs \
	  --output-file $(LOWEST)/versions.txt pyproject.toml
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python -r $(LOWEST)/versions.txt
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps -e .
	touch $@

test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m 'not slow'
	$(LOWEST)/bin/python $(SITE)

bench: $(VENV)/installed
	$(BIN)/python bench/page.py

# JupyterLab then keeps the labeler's state in the notebooks that it saves.
lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/notebooks/jupyter:$(JUPYTER_CONFIG_PATH)
lab: $(VENV)/installed
	mkdir -p runs
	$(BIN)/python -m jupyterlab

figures: $(VENV)/installed
	cd notebooks && $(RUN) figures.ipynb ../runs/figures.ipynb -p out ../figures
	$(BIN)/python bench/card.py

$(VENV)/docs-installed: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

docs: $(VENV)/docs-installed
	$(BIN)/python $(SITE)
	@echo docs/_build/html/index.html

clean:
	rm -rf runs $(VENV) $(LOWEST) docs/_build
