# `make lab` opens the lessons, `make test` checks everything; each makes the environment first.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
ROOT   := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help lab test check fast lessons bench format env clean

help:
	@echo "make lab                    open the lessons in JupyterLab  (ARGS=--no-browser for a server)"
	@echo "make test                   check everything: style, types, laws, lessons, sliders in a browser"
	@echo "make check                  style and types only"
	@echo "make fast                   the laws only, in about a minute  (ARGS='-k samplers' for a few)"
	@echo "make lessons                rebuild and run the notebooks from lessons/source, and their index  (ONLY=11)"
	@echo "make bench                  measure what the project promises  (ONLY=lessons_time for one)"
	@echo "make format                 let ruff put the style right"
	@echo "make clean                  remove everything that make made, the environment too"
	@echo "PYTHON=python3.12           choose the Python that the environment is made with"

lab: $(READY)
	$(PY) -m jupyterlab $(ROOT) lessons $(ARGS)

# the few long tests come first, so that the short ones fill the gaps
test: check
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/test_lesson_runs.py tests -n auto $(ARGS)

check: $(READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

fast: $(READY)
	$(PY) -m pytest tests -m "not slow and not browser" -n auto $(ARGS)

lessons: $(READY)
	$(PY) -m lessons.source.build $(ONLY)
	$(PY) -m lessons.source.index

bench: $(READY)
	$(PY) -m tests.benchmarks $(ONLY)

format: $(READY)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

env: $(READY)

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +


# The environment: uv makes it in seconds, pip in minutes where uv is not to be had.

TOO_OLD := didiff needs Python 3.11 or newer; choose one, as in: make PYTHON=python3.12
INSTALL := --constraint constraints.txt --editable ".[dev]"

# uv does not read pip's settings, so whatever pip was told about indexes is handed on to it. pip takes
# the best version of all its indexes; uv must be told to.
PIP_SETTINGS = $$(for section in global install :env:; do \
    for key in index-url extra-index-url find-links; do \
        for value in $$($(PY) -m pip config get $$section.$$key 2>/dev/null); do \
            echo "--$$key $$value"; \
        done; \
    done; done)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(TOO_OLD)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet uv \
	&& $(PY) -m uv pip install --python $(PY) --index-strategy unsafe-best-match --compile-bytecode \
	    $(PIP_SETTINGS) $(INSTALL) \
	|| { echo "without uv: pip takes a few minutes"; $(PY) -m pip install $(INSTALL); }
	@touch $@
