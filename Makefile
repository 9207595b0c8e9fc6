# make demo       the main job on synthetic radiographs, in .venv
# make test-fast  unit tests: no Ray, no server, no browser
# make test       linters and all but the slow tests; in a container it installs Chromium for the page's tests
# make test-all   everything: also clusters of their own, killed drivers, S3 from end to end
# make coverage   lines and branches of chexseg/ that make test-all reaches, subprocesses and Ray's workers included
PYTHON ?= python3
VENV := .venv

.PHONY: demo test-fast test test-all coverage lint chromium clean

demo: $(VENV)/installed
	$(VENV)/bin/chexseg demo --out demo

# Two processes: half of the tests' time is spent waiting for Ray.
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/installed-test
	$(PYTEST) -m "not heavy and not slow"

test: lint chromium test-fast
	$(PYTEST) -m "heavy and not slow"

test-all: test
	$(PYTEST) -m slow

coverage: $(VENV)/installed-test chromium
	$(VENV)/bin/coverage erase
	$(MAKE) test-all PYTEST="$(VENV)/bin/coverage run -m pytest -n 2 --dist loadfile"
	$(VENV)/bin/coverage combine -q
	$(VENV)/bin/coverage report

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

# The page's tests need a browser, and are skipped without one. Only root on Debian and its like is given one.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	     && { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	     || echo "no Chromium: the page's tests in a browser will be skipped"; }

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
