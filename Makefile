# Two commands do everything: `make demo` and `make test`. Both make the environment in .venv first, if need be.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: install demo test test-fast coverage attack check bench bench-page docs notebooks format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $@

demo: install
	$(BIN)/tl-reward demo --overwrite

# Two files at a time: on two cores that takes little more than half of the time. The dearest files come first (tests/conftest.py).
# Bytecode is kept whatever the environment says: tests start many processes, and each would compile the package anew.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST)

# For the loop of writing code: neither real models nor browsers nor attacks, nor what takes seconds.
test-fast: install
	$(PYTEST) -m "not (real or browser or attack or slow)"

# Which lines and branches of tl_reward the tests reach; the command's own processes are counted too. Slower than `make test`.
coverage: install
	$(PYTEST) --cov --cov-report term:skip-covered --cov-report html

# The long form of tests/attack (docs/reliability.md says how long); `make test` runs a short one.
attack: install
	TL_REWARD_ATTACK=long $(PYTEST) -m attack --durations 20

# PAIRS: a file, a hub id, or "embedded". docs/performance.md has the figures for HH-RLHF's harmless-base test split.
bench: install
	$(BIN)/python benchmarks/speed.py $(if $(PAIRS),--pairs $(PAIRS))

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(PYTEST)

# How fast the page of the demo's run is; needs Chromium.
bench-page: install
	$(BIN)/python benchmarks/page.py --run runs/demo

# The documentation site, in site/: offline, a warning is an error. The variable leaves out a notice of mkdocs-material (docs/decisions/0003).
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	! grep -rlE '<(script|link|img)[^>]*(src|href)="?(https?:)?//' site --include='*.html' # nothing is loaded from elsewhere

# The tutorials, run again on the embedded models, with what they then show. About 10 minutes on 2 cores.
notebooks: install
	$(BIN)/python docs/theme/run_notebooks.py

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs site htmlcov .coverage
