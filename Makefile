# make run     the example site, its worker, beat and Valkey; Ctrl-C stops all of them
# make test    the tests, on PostgreSQL, and those of the rows on SQLite too
# make test-mariadb  those of the rows on MariaDB, where one is installed
# make test-faults   the tests that take minutes, or repeat others with larger numbers
# make test-protocol  the failure protocol, over many more random faults: hours
# make test-browser  those of the pages in Chromium, where one is installed
# make screenshots   takes the pictures of the documentation anew
# make test-newest   those of what Django changes most, on the newest Django, by the newest Python at hand
# make matrix  the tests that need no minutes, under every Python at hand and every Django
# make check   style, types, import rules, migrations
# make messages   collects the words to translate, and compiles those that are translated; needs GNU gettext
# make clean   removes what the other targets made, the virtual environment and the demo's data too
#
# PYTHON=python3.12 chooses the Python of the virtual environment, PORT=8001 the port of the site, and
# ARGS="-k lockout" goes to pytest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHECKED := build/check
# Each run of the tests adds how much passed to this file, and on which database.
TESTED := build/tested.txt
export AXES_TESTED := $(CURDIR)/$(TESTED)
# Three processes share the tests by their files, each with servers of its own: tests often wait. summary.py orders them.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# The tests start many processes, which would each compile all of the code anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-mariadb test-faults test-protocol test-browser test-newest screenshots matrix check messages clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

run: $(VENV)/installed-example
	@$(BIN)/python -m example_project.run

test: $(VENV)/installed-dev
	@rm -f $(TESTED)
	$(PYTEST) -m "not long" $(ARGS)
	AXES_TEST_DATABASE=sqlite $(PYTEST) -m database $(ARGS)
	@$(BIN)/python -m tests.summary

test-mariadb: $(VENV)/installed-dev
	AXES_TEST_DATABASE=mysql $(PYTEST) -m database $(ARGS)

test-faults: $(VENV)/installed-dev
	$(PYTEST) -m long $(ARGS)

test-protocol: $(VENV)/installed-dev
	AXES_PROTOCOL_EXAMPLES=1000 AXES_PROTOCOL_WALKS=10000 $(BIN)/python -m pytest tests/protocol -m "not long" --timeout 36000 $(ARGS)

test-browser: $(VENV)/installed-browser
	AXES_TEST_DATABASE=sqlite $(BIN)/python -m pytest tests/browser $(ARGS)

screenshots: $(VENV)/installed-browser
	$(BIN)/python -m tests.browser.screenshots

matrix: $(VENV)/installed-matrix
	$(BIN)/nox --session tests $(if $(ARGS),-- $(ARGS))

test-newest: $(VENV)/installed-matrix
	$(BIN)/nox --session newest $(if $(ARGS),-- $(ARGS))

# tasks/ is installed as axes_async.tasks: the tools look at a copy in which it stands there.
check: $(VENV)/installed-dev
	@rm -rf $(CHECKED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(CHECKED)
	@cp -R axes_async example_project $(CHECKED)/
	@cp -R tasks $(CHECKED)/axes_async/tasks
	cd $(CHECKED) && PYTHONPATH=. MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml \
		--cache-dir ../../.mypy_cache -p axes_async -p example_project
	cd $(CHECKED) && PYTHONPATH=. ../../$(BIN)/lint-imports --no-logo --config ../../pyproject.toml --no-cache
	$(BIN)/python example_project/manage.py makemigrations --check --dry-run

messages: $(VENV)/installed-dev
	cd axes_async && ../$(BIN)/django-admin makemessages --all --no-obsolete --no-wrap --add-location file
	cd axes_async && ../$(BIN)/django-admin compilemessages

clean:
	rm -rf $(VENV) .nox build dist var *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that a new environment gets, so an environment that was left half-made is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is not that. Name one that is: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each group: installed again only when pyproject.toml has changed since.
$(VENV)/installed-%: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -qq --editable . --group $*
	@touch $@
