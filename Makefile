# make demo, make test: set up a virtual environment, build, and run. Needs only what `tools` names.
#
#   PYTHON  the Python that .venv is made from
#   TORCH   what pip is given to install torch: a version, or a version and an --index-url
PYTHON = python3
TORCH = torch
VENV = .venv

PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check --quiet
INPUTS = $(shell find csrc -type f) setup.py build_support.py pyproject.toml
LOG = $(VENV)/build.log
SWITCHES = FORCE_CUDA=$(FORCE_CUDA) SSPCAB_NO_CUDA=$(SSPCAB_NO_CUDA) DEBUG=$(DEBUG) \
  TORCH_CUDA_ARCH_LIST=$(TORCH_CUDA_ARCH_LIST) CUDA_HOME=$(CUDA_HOME) CXX=$(CXX)

.PHONY: demo test bench lint format clean tools always
.DELETE_ON_ERROR:

demo: $(VENV)/with-demo
	$(PY) -m sspcab_cuda.demo $(DEMO_ARGS)

test: $(VENV)/with-test
	$(PY) -m pytest $(PYTEST_ARGS)

bench: $(VENV)/with-bench
	$(PY) -m benchmarks $(BENCH_ARGS)

lint: $(VENV)/with-dev $(VENV)/with-test
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	find csrc -type f | xargs $(VENV)/bin/clang-format --dry-run -Werror
	$(PY) -m mypy

format: $(VENV)/with-dev
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format
	find csrc -type f | xargs $(VENV)/bin/clang-format -i

clean:
	rm -rf $(VENV) build dist *.egg-info sspcab_cuda/_C.*.so .coverage demo-output
	find . -name __pycache__ -prune -exec rm -rf {} +

# Says everything that is missing at once, before anything is made.
tools:
	@missing=; need() { printf '%s\n' "make: missing: $$1" >&2; missing=1; }; \
	if ! command -v $(PYTHON) >/dev/null; then need "$(PYTHON) (apt install python3)"; else \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || need "Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V)"; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	    || need "Python's venv module (apt install python3-venv)"; \
	  $(PYTHON) -c 'import os, sys, sysconfig; \
	    sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
	    || need "Python's headers (apt install python3-dev)"; \
	fi; \
	command -v $(firstword $(CXX)) >/dev/null || need "a C++ compiler, $(CXX) (apt install g++)"; \
	test -z "$$missing"

$(PY): | tools
	$(PYTHON) -m venv $(VENV)

$(VENV)/with-torch: | tools $(PY)
	@echo "make: installing torch"
	$(PIP) install "setuptools>=77.0.3" ninja pybind11
	$(PIP) install $(TORCH)
	@touch $@

# Other switches than the last build's mean another build.
$(VENV)/switches: always | $(PY)
	@echo '$(SWITCHES)' | cmp -s - $@ || echo '$(SWITCHES)' >$@

# The build's own words go to a log; the lines that tell what was decided are shown.
$(VENV)/built: $(INPUTS) $(VENV)/switches $(VENV)/with-torch
	@if test "$(FORCE_CUDA)" = 1 || command -v nvidia-smi >/dev/null; then \
	  $(PIP) install --no-deps nvidia-cutlass; fi # its headers alone
	@echo "make: building sspcab_cuda (log in $(LOG))"
	@$(PY) -m pip --disable-pip-version-check install -v --no-build-isolation --no-deps -e . \
	  >$(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@sed -n 's/^ *\(sspcab: \)/\1/p' $(LOG)
	@touch $@

$(VENV)/with-%: $(VENV)/built
	$(PIP) install "sspcab_cuda[$*]"
	@touch $@
