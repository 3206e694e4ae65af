# Each target does its own set-up: a .venv with the tested set, made once and reused.
# PYTHON=/path/to/python picks the interpreter that the .venv is made with.

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python)
PYTEST_ARGS ?= -n 2 --dist worksteal
CONSTRAINTS := constraints/tested.txt
EXTRA := dev
TOKEN_SECONDS ?= 120
RUNS ?= 100000
EPISODES ?= 1000
SEED ?= 1
FAULTS_JSON ?= faults.json
AZUREML := VENV=.venv-azureml CONSTRAINTS=constraints/azureml.txt EXTRA=test-azureml
BENCH := VENV=.venv-bench CONSTRAINTS=constraints/bench.txt EXTRA=bench
BENCH_ARGS ?=
# Lightning 2.1 reads its own checkpoints with a torch of its time only, or when told to.
OLDEST := TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 VENV=.venv-oldest CONSTRAINTS=constraints/oldest.txt EXTRA=test
OLDEST_TESTS := $(foreach subject,announcer cli datasets exporters keras lightning mlflow models orders runs sklearn torch,\
	$(wildcard tests/test_$(subject).py tests/test_$(subject)_*.py))

.PHONY: check test test-main test-azureml azure-long test-long test-oldest test-in-venv fuzz faults demo clean
.PHONY: bench bench-in-venv bench-core bench-frameworks bench-local bench-mlflow bench-azureml bench-azureml-in-venv
.DELETE_ON_ERROR:

check: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: test-main $(if $(filter file,$(origin PYTEST_ARGS)),test-azureml)

test-main: check
	$(PY) -m pytest $(PYTEST_ARGS)

test-azureml:
	$(MAKE) $(AZUREML) TESTS=tests/azureml test-in-venv

azure-long:
	TOKEN_SECONDS=$(TOKEN_SECONDS) $(MAKE) $(AZUREML) PYTEST_ARGS="-n 4 --timeout 3600" \
		TESTS="tests/azureml/test_tokens.py -k expire" test-in-venv
	$(MAKE) $(AZUREML) TESTS="-m long tests/azureml" test-in-venv

test-long:
	$(MAKE) TESTS="-m long" test-in-venv

test-oldest:
	$(MAKE) $(OLDEST) TESTS="-m 'not recent and not long' $(OLDEST_TESTS)" test-in-venv

test-in-venv: $(INSTALLED)
	$(PY) -m pytest $(PYTEST_ARGS) $(TESTS)

fuzz: $(INSTALLED)
	$(PY) -m tests.fuzzing -runs=$(RUNS)

demo: $(INSTALLED)
	$(PY) examples/demo.py

faults: $(INSTALLED)
	$(PY) tests/campaign --episodes $(EPISODES) --from $(SEED) --json $(FAULTS_JSON)

bench:
	$(MAKE) $(BENCH) bench-in-venv

bench-in-venv: $(INSTALLED)
	$(PY) benchmarks/peers $(BENCH_ARGS)

bench-core: $(INSTALLED)
	$(PY) benchmarks/core.py

bench-frameworks: $(INSTALLED)
	$(PY) benchmarks/frameworks.py

bench-local: $(INSTALLED)
	$(PY) benchmarks/local_store.py

bench-mlflow: $(INSTALLED)
	$(PY) benchmarks/mlflow_calls.py

bench-azureml:
	$(MAKE) $(AZUREML) bench-azureml-in-venv

bench-azureml-in-venv: $(INSTALLED)
	$(PY) benchmarks/workspaces.py

clean:
	rm -rf $(VENV) .venv-azureml .venv-bench .venv-oldest dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# A .venv that cannot run pip (half made, or of a Python that is gone) is made anew.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@if ! { $(PY) -c '$(SUPPORTED)' && $(PY) -m pip --version; } >/dev/null 2>&1; then \
		for python in $(CANDIDATES) none; do \
			if [ $$python = none ]; then \
				echo "autolog needs Python 3.10 to 3.13 with venv; none among: $(CANDIDATES)." \
					"Name one: make PYTHON=/path/to/python" >&2; \
				exit 1; \
			fi; \
			if $$python -c '$(SUPPORTED)' >/dev/null 2>&1; then break; fi; \
		done; \
		echo "making $(VENV) with $$python"; \
		rm -rf $(VENV) && $$python -m venv $(VENV); \
	fi
	@echo "installing $(CONSTRAINTS) into $(VENV): some minutes, once"
	$(PY) -m pip install --quiet -c $(CONSTRAINTS) -e ".[$(EXTRA)]"
	@touch $@
