# Every target with `##` behind its name is shown by `make help`.

.DEFAULT_GOAL := help
.PHONY: help run history test faults faults-full check format bench lock clean

VENV := .venv
PYTHON := $(VENV)/bin/python
# The clean-up of these folders never touches `var/`: that is data.
CACHES := build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## A living sample city: make run [PORT=8123] [LAN=1 for phones in the same network]
	@exec $(PYTHON) -m app demo $(if $(PORT),--port $(PORT)) $(if $(filter 1 yes true,$(LAN)),--lan)

# In a folder of its own, which goes when it ends.
history: $(VENV)/.run ## A city with months behind it, to try reports: make history [STATIONS=60 DAYS=120 PORT=8000]
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; trap 'exit 0' INT TERM; \
	export YIZHAN_DATA_DIR="$$folder" YIZHAN_DATABASE_URL=; app="$(PYTHON) -m app"; \
	$$app migrate; \
	$$app generate --stations $(or $(STATIONS),60) --days $(or $(DAYS),120); \
	for job in record-modes roll-up usual-profiles; do $$app job run $$job; done; \
	password=$$($(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(12))'); \
	echo "$$password" | $$app admin create --username boss --role city_admin --password-stdin; \
	echo; echo "reports     http://127.0.0.1:$(or $(PORT),8000)/admin/reports"; \
	echo "login       boss / $$password"; echo; \
	$$app serve --port $(or $(PORT),8000)

test: $(VENV)/.dev ## The whole suite, on SQLite and PostgreSQL: make test [ARGS="tests/doors -k scan"]
	@$(PYTHON) -m pytest -n logical --dist worksteal $(ARGS)

faults: $(VENV)/.dev ## Kill, freeze and cut: a short round of the fault trials; FAULTS="--only R04 --seed 7"
	@$(PYTHON) -m tests.faults $(FAULTS)

faults-full: $(VENV)/.dev ## All of it, with the seeded bugs (an hour or so); writes docs/promises.md
	@$(PYTHON) -m tests.faults --full $(FAULTS)

check: $(VENV)/.dev ## Lint, format, types; no registry address in the locks
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@! grep -n '://' requirements.lock requirements-dev.lock

format: $(VENV)/.dev ## Put the code in order
	@$(PYTHON) -m ruff check --fix --quiet . ; $(PYTHON) -m ruff format .

bench: $(VENV)/.dev ## Measure on PostgreSQL; writes docs/benchmarks.md; GROUPS="polls journal": only those
	@$(PYTHON) -m benchmarks $(GROUPS)

# `uv` resolves for all Pythons and systems at once; it lives in a folder of its own for that moment.
lock: $(VENV)/.run ## Pin the newest allowed versions, with hashes
	@set -eu; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$(PYTHON) -m venv "$$tools"; "$$tools/bin/python" -m pip install --quiet uv; \
	for lock in "build requirements.lock" "dev requirements-dev.lock"; do \
		set -- $$lock; echo "Resolving $$2 ..."; \
		"$$tools/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 \
			--generate-hashes --no-emit-index-url --no-annotate --no-header \
			pyproject.toml --group "$$1" -o "$$2"; \
	done; \
	! grep -n '://' requirements.lock requirements-dev.lock

clean: ## Remove the virtual environment and all caches; data in var/ stays
	@rm -rf $(VENV) $(CACHES)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment -------------------------------------------------------------------

# What cannot be repaired is made anew: a Python that is gone, a folder that was moved (scripts name
# their folder), an installation that was interrupted.
define SOUND
test ! -e $(VENV)/.installing && \
test "$$(cat $(VENV)/.made-for 2>/dev/null || pwd)" = "$$(pwd)" && \
$(PYTHON) -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
endef

# A stamp says only that the pins are in; an unsound folder loses its stamps, so that it is seen to.
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
$(shell { $(SOUND); } || rm -f $(VENV)/.run $(VENV)/.dev)
endif

# The first of these that really starts (a name may be a wrapper without a Python behind it).
define MAKE_VENV
for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
		2>/dev/null; then found=$$name; break; fi; \
done; \
if [ -z "$${found:-}" ]; then \
	echo "Please install Python 3.11 to 3.14, on Debian and Ubuntu: sudo apt-get install python3 python3-venv"; \
	exit 1; \
fi; \
if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
	version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	echo "Please install venv for Python $$version, on Debian and Ubuntu: sudo apt-get install python$$version-venv"; \
	exit 1; \
fi; \
echo "Making $(VENV) with $$("$$found" --version) ..."; \
rm -rf $(VENV); "$$found" -m venv $(VENV)
endef

INSTALL := $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input

$(VENV)/.run: requirements.lock pyproject.toml
	@set -eu; { $(SOUND); } || { $(MAKE_VENV); }; \
	echo "Installing the pinned packages (a minute or two, only when they change) ..."; \
	touch $(VENV)/.installing; \
	$(INSTALL) --require-hashes -r requirements.lock; \
	$(INSTALL) --no-deps --no-build-isolation -e .; \
	pwd > $(VENV)/.made-for; rm $(VENV)/.installing; touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@set -eu; echo "Installing the tools of development and PostgreSQL ..."; \
	touch $(VENV)/.installing; \
	$(INSTALL) --require-hashes -r requirements-dev.lock; \
	rm $(VENV)/.installing; touch $@
