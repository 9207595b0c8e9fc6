# make demo   the main job on synthetic radiographs, in .venv
# make test   the whole test suite but what make test-cluster runs, in the same environment
# make test-cluster   tests on Ray clusters of their own that take longer than two minutes
PYTHON ?= python3
VENV := .venv

.PHONY: demo test test-cluster lint clean

demo: $(VENV)/installed
	$(VENV)/bin/chexseg demo --out demo

test: lint
	$(VENV)/bin/python -m pytest

test-cluster: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest -m cluster

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "chexseg needs Python 3.11 or newer; this is " + sys.version)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf demo $(VENV)
