# make run   starts the farm;  make test  runs the tests. Both make .venv first if need be.

# Where the images are: make run ROOT=/srv/images
ROOT =
# A Python to use instead of the first suitable one: make venv PYTHON=/opt/python/bin/python3.12
PYTHON =
# Options and cases: make bench BENCH="--pairs 3 farm kept"
BENCH =

VENV   = .venv
BIN    = $(VENV)/bin
# The stamps lie in the environment: removing it removes them, and it is made anew.
BASE   = $(VENV)/.stamp-base
RUN    = $(VENV)/.stamp-run
DEV    = $(VENV)/.stamp-dev
PARTS  = setup.cfg pyproject.toml twisted/plugins/imagefarm_plugin.py
PREFIX = var
# A relative ROOT is relative to where make was called.
ROOT_PATH = $(if $(filter /%,$(ROOT)),$(ROOT),$(CURDIR)/$(ROOT))

# A default editable install hides twisted/plugins/ from twistd; "compat" doesn't. Asking twistd
# for its help writes the cache of its plugins, so that no later start has to.
INSTALL  = $(BIN)/python -m pip install -qq --disable-pip-version-check \
           --config-settings editable_mode=compat
DROPIN   = $(BIN)/twistd --help > $(VENV)/.twistd-help && \
           grep -q imagefarm $(VENV)/.twistd-help || \
           { echo "twistd does not know imagefarm: see $(VENV)/.twistd-help" >&2; exit 1; }

.PHONY: run venv test lint docs ci bench bench-choice bench-resize clean
.DEFAULT_GOAL = run

run: $(RUN)
	@mkdir -p $(PREFIX)
	@exec $(BIN)/twistd -n --pidfile= --logger=imagefarm.process.console.Console \
	  imagefarm farm --prefix $(PREFIX) $(if $(ROOT),--root '$(ROOT_PATH)')

venv: $(DEV)

# The tests start hundreds of daemons: with their byte code kept, each start takes half the time.
test: export PYTHONDONTWRITEBYTECODE =
test: $(DEV)
	$(BIN)/python -m tests

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV)
	$(BIN)/python -m imagefarm.app.docs docs/configuration.md

ci:
	.ci/run

bench: $(DEV)
	$(BIN)/python -m benchmarks.engine $(BENCH)

bench-choice: $(DEV)
	$(BIN)/python -m benchmarks.choice $(BENCH)

bench-resize: $(DEV)
	$(BIN)/python -m benchmarks.resize $(BENCH)

clean:
	rm -rf build dist *.egg-info _trial_temp* .hypothesis .mypy_cache .ruff_cache \
	  .import_linter_cache $(VENV)
	find imagefarm tests benchmarks twisted -name __pycache__ -prune -exec rm -rf {} +

$(BASE):
	@.ci/make-venv $(VENV) $(PYTHON)
	@touch $@

$(RUN): $(BASE) $(PARTS)
	$(INSTALL) -e .
	@$(DROPIN)
	@touch $@

$(DEV): $(BASE) $(PARTS)
	$(INSTALL) -e '.[dev]'
	@$(DROPIN)
	@touch $@ $(RUN)
