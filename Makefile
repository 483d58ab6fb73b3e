# nucleus_course. The two commands that matter: `make demo` and `make test`.
# Both set up .venv first. PYTHON=python3.12 picks the interpreter, VENV=path another environment.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
OUT    ?= demo-output
# Processes that share the tests, a file each at a time; WORKERS=0 runs them in one, as a debugger needs it.
WORKERS ?= auto
SHARED := -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Set-up is done again when pyproject.toml or the tested versions change, and only then.
LOCK   := constraints.txt
STAMP  := $(VENV)/.setup-$(firstword $(shell cat pyproject.toml $(LOCK) | cksum))

export KERAS_BACKEND ?= tensorflow
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Large pages for glibc's allocator: TensorFlow is 1.4 times as fast where page faults are dear, and no slower elsewhere.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.DEFAULT_GOAL := help
.PHONY: help setup lock lowest audit demo check test test-fast lab site pdf picture clean

help:
	@echo "make setup      make $(VENV) and install TensorFlow, JAX, the course and the tests' tools"
	@echo "make lock       choose the exact versions in $(LOCK) anew, after pyproject.toml has changed"
	@echo "make lowest     the quick tests with the lowest versions that pyproject.toml allows; LOWEST=python3.10"
	@echo "make audit      known vulnerabilities of what is installed"
	@echo "make demo       the main job on the embedded sample, offline: figures, table and report in $(OUT)/"
	@echo "make check      format, lint and types: ruff and mypy, seconds"
	@echo "make test       every test, the notebooks included (10 to 22 minutes on two cores)"
	@echo "make test-fast  the quick tests only, no notebooks"
	@echo "make lab        JupyterLab on the notebooks"
	@echo "make site       the web site in out/site: docs, reference and rendered solutions; dead links end it"
	@echo "make pdf        the same as one file to print, out/site/nucleus-course.pdf; needs Chromium or Chrome"
	@echo "make picture    draw README's picture again, docs/images/detection.png"
	@echo "make clean      remove what the commands above wrote, $(VENV) included"

setup: $(STAMP)

$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	    || { echo "error: Python 3.10 to 3.13 is needed, $(PYTHON) is not: try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	    || { echo "error: cannot make $(VENV): install Python's venv module (Debian, Ubuntu: apt install python3-venv)" >&2; rm -rf $(VENV); exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c $(LOCK) -e ".[dev]"
# imaug asks for both editions of OpenCV, which share one folder. The one with windows needs libGL;
# where that is missing, as on a bare server, the headless one goes on top.
	@$(BIN)/python -c "import cv2" 2>/dev/null \
	    || $(BIN)/python -m pip install --quiet --force-reinstall --no-deps "opencv-python-headless<4.13"
	@rm -f $(VENV)/.setup-*
	@touch $@

# The exact versions that `make setup` installs, for Python 3.10 to 3.13 and each system; `make lock UP=--upgrade` moves them.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
	    --extra dev $(UP) pyproject.toml --output-file $(LOCK)

# The quick tests with the lowest versions allowed: those of pyproject.toml, or the first after them with a wheel.
LOWEST ?= python3.10
lowest:
	$(BIN)/python -m pip install --quiet uv
	rm -rf out/lowest && mkdir -p out
	$(BIN)/python -m uv venv --quiet --python $(LOWEST) out/lowest
	$(BIN)/python -m uv pip compile --quiet --python out/lowest --resolution lowest-direct --only-binary :all: \
	    --extra course --extra test pyproject.toml --output-file out/lowest.txt
	$(BIN)/python -m uv pip install --quiet --python out/lowest --requirements out/lowest.txt
	$(BIN)/python -m uv pip install --quiet --python out/lowest --no-deps --editable .
	PATH="$(CURDIR)/out/lowest/bin:$$PATH" out/lowest/bin/python -m pytest -n 2 tests -m "not slow" $(PYTEST_ARGS)

# Known vulnerabilities of those versions; asks a database on the internet.
audit:
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit

demo: setup
	$(BIN)/nucleus-course demo --out $(OUT)

# nbval runs each notebook in this environment's kernel; cells tagged nbval-check-output are compared.
test: setup
	$(BIN)/python -m pytest $(SHARED) tests $(wildcard notebooks) --nbval-lax --nbval-current-env --nbval-cell-timeout=600 $(PYTEST_ARGS)

test-fast: setup
	$(BIN)/python -m pytest $(SHARED) tests -m "not slow" $(PYTEST_ARGS)

check: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

lab: setup
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

# Warnings are errors: a link or reference that leads nowhere ends the build.
site: setup
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs . out/site
	@echo "open out/site/docs/index.html"

# One page of everything, printed by a browser; its files are found from the top of the folder only.
BROWSER ?= $(firstword $(foreach name,chromium chromium-browser google-chrome chrome,$(shell command -v $(name))))
pdf: setup
	@test -n "$(BROWSER)" || { echo "error: no Chromium or Chrome here: install one, or make pdf BROWSER=/path/to/it" >&2; exit 2; }
	$(BIN)/python -m sphinx -q -b singlehtml -c docs . out/page
	cp out/page/docs/index.html out/page/index.html
	@mkdir -p out/site
	$(BROWSER) --headless --no-sandbox --disable-gpu --no-pdf-header-footer \
	    --print-to-pdf=out/site/nucleus-course.pdf "file://$(CURDIR)/out/page/index.html"

picture: setup
	$(BIN)/python docs/images/make_detection.py

clean:
	rm -rf $(VENV) $(OUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
