#!/usr/bin/env bash
# Builds with clang against the oldest torch, a warning being an error, and tests the operators on
# every instruction set: the other end of what `make test` builds with.
#
#   make compilers          CXX: the compiler; default clang++     PYTHON: default python3
. "$(dirname "$0")/fresh.sh"

compiler=${CXX:-clang++}
need "$compiler" clang

"${PYTHON:-python3}" -m venv "$work/environment"
"$work/environment/bin/pip" install --quiet "torch==$oldest_torch" numpy "setuptools>=77.0.3" ninja \
  pybind11 pytest hypothesis
export PATH="$work/environment/bin:$PATH"
cd "$work/source"

say "$("$compiler" --version | head -n 1), torch $oldest_torch"
CXX="$compiler -Werror" python setup.py build_ext --inplace >"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
python -m pytest -q tests/operators tests/cpu/test_direct_winograd_windows.py tests/python/test_errors.py
for capability in avx2 baseline; do
  SSPCAB_CPU_CAPABILITY=$capability python -m pytest -q tests/operators/test_{forward,backward}.py
done
