# make demo       the main job on synthetic radiographs, in .venv
# make setup      all that development needs, in .venv
# make test-fast  unit tests: no Ray, no server, no browser
# make test       linters and all but the slow tests; as root it installs Chromium, which some need
# make test-all   everything: also Ray clusters, killed drivers, S3 from end to end
# make lint       style, layers, types, spelling; and make audit, where the network allows
# make audit      known vulnerabilities of the locked packages, from osv.dev
# make coverage   lines and branches of chexseg/ that make test-all reaches, in all its processes
# make docs       the documentation as a site, in build/site; a broken link is an error
# make lock       renew the lock files after a change of pyproject.toml; what still fits stays
#                 (make lock LOCK=--upgrade takes the newest versions that pyproject.toml allows)
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check

.PHONY: demo setup test-fast test test-all coverage lint audit audit-if-online docs lock chromium clean

demo: $(VENV)/installed
	$(VENV)/bin/chexseg demo --out demo

setup: $(VENV)/installed-test

# Two processes: half of the tests' time is spent waiting for Ray. The long files are first in order.
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/installed-test
	$(PYTEST) -m "not heavy and not slow"

test: lint chromium test-fast
	$(PYTEST) -m "heavy and not slow"

test-all: lint chromium test-fast
	$(PYTEST) -m "heavy or slow"

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
	git ls-files -z | xargs -0 $(VENV)/bin/codespell
	@$(MAKE) --no-print-directory audit-if-online

# PyPI's own list isn't used: where a mirror answers for PyPI without one, it would pass silently.
OSV := api.osv.dev
audit-if-online: $(VENV)/installed-test
	@if $(VENV)/bin/python -c "import socket; socket.create_connection(('$(OSV)', 443), 5)" \
		2>/dev/null; then $(MAKE) audit; \
	else echo "vulnerabilities: not checked, because $(OSV) can't be reached"; fi

audit: $(VENV)/installed-test
	$(VENV)/bin/uv tool run pip-audit@2.10.1 --vulnerability-service osv --disable-pip \
		--require-hashes --requirement requirements-test.lock

docs: $(VENV)/installed-test
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

# No addresses: each machine installs from its configured index, and the hashes hold for any.
COMPILE := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml

# The tests' packages decide: they need older versions of a few that the package itself needs.
lock:
	test -x $(VENV)/bin/uv || $(MAKE) $(VENV)/installed-test
	$(COMPILE) $(LOCK) --extra test --output-file requirements-test.lock >/dev/null
	$(COMPILE) $(LOCK) --constraints requirements-test.lock --output-file requirements.lock >/dev/null

# Some of the page's tests need a browser, and are skipped without one.
# Only root on Debian and its like is given one.
chromium:
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
	     && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -qq -y --no-install-recommends chromium >/dev/null; } \
	|| echo "no Chromium: the page's tests in a browser will be skipped"

$(VENV)/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"chexseg needs Python 3.11 or newer; this is " + sys.version)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .  # with the lock's setuptools
	touch $@

$(VENV)/installed-test: $(VENV)/installed requirements-test.lock
	$(PIP) --require-hashes --requirement requirements-test.lock
	touch $@

clean:
	rm -rf demo $(VENV)
