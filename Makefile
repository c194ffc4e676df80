# `make lab` opens the lessons, `make test` checks everything; each makes the environment first.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
ENDS   := 3.11 3.14 # of the Pythons served: types that come or go in between show here too
LAB    := JUPYTER_CONFIG_PATH="$(CURDIR)/lessons/source/jupyter:$$JUPYTER_CONFIG_PATH" # pages open rendered
ROOT   := $(if $(filter 0,$(shell id -u)),--allow-root)

SPLIT  := $(subst deeper/,,$(wildcard lessons/source/deeper/*.py))
NARROW := --line-length 76 $(SPLIT) # what a projector shows of a line

.PHONY: help lab test check fast lessons pictures wheel colab bench format env clean

help:
	@echo "make lab                    open the lessons in JupyterLab  (ARGS=--no-browser for a server)"
	@echo "make test                   check everything: style, types, laws, lessons, sliders in a browser"
	@echo "make check                  style and types only"
	@echo "make fast                   the laws only, in about a minute  (ARGS='-k samplers' for a few)"
	@echo "make lessons                rebuild and run the notebooks from lessons/source, and their index  (ONLY=11)"
	@echo "make pictures               draw the pictures of the two READMEs again, from shipped weights"
	@echo "make wheel                  build dist/didiff-*.whl, and try it in a new environment"
	@echo "make colab                  run the sliders with the packages that Colab has"
	@echo "make bench                  measure what the project promises  (ONLY=lessons_time for one)"
	@echo "make format                 let ruff put the style right"
	@echo "make clean                  remove everything that make made, the environment too"
	@echo "PYTHON=python3.12           choose the Python that the environment is made with"

lab: $(READY)
	$(LAB) $(PY) -m jupyterlab $(ROOT) lessons --LabApp.default_url=/lab/tree/README.md $(ARGS)

# the few long tests come first, the short ones fill the gaps: whoever is free takes the next
test: check
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/test_lesson_runs.py tests/test_browser.py tests/test_start.py tests \
	    -n auto --dist load --maxschedchunk 1 $(ARGS)

check: $(READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff format --check $(NARROW)
	$(PY) -m ruff check .
	$(PY) -m compileall -q didiff lessons/source tests .ci
	printf '%s\n' $(ENDS) | xargs -P 2 -I% $(PY) -m mypy --python-version %

fast: $(READY)
	$(PY) -m pytest tests -m "not slow and not browser" --ignore tests/test_browser.py -n auto $(ARGS)

lessons: $(READY)
	$(PY) -m lessons.source.build $(ONLY)
	$(PY) -m lessons.source.index

pictures: $(READY)
	$(PY) -m lessons.source.pictures

wheel: $(READY)
	$(PY) -m tests.wheel

colab: $(READY)
	$(PY) -m tests.colab

bench: $(READY)
	$(PY) -m tests.benchmarks $(ONLY)

format: $(READY)
	$(PY) -m ruff format .
	$(PY) -m ruff format $(NARROW)
	$(PY) -m ruff check --fix .

env: $(READY)

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +


# The environment: uv makes it in seconds, pip in minutes where uv is not to be had.

TOO_OLD := didiff needs Python 3.11 or newer; choose one, as in: make PYTHON=python3.12

$(READY): pyproject.toml constraints.txt .ci/install.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(TOO_OLD)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@UV_COMPILE_BYTECODE=1 $(PY) .ci/install.py --constraint constraints.txt --editable ".[dev]"
	@touch $@
