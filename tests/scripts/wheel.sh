#!/usr/bin/env bash
# Tests a wheel under other versions of torch than the one it was built with: for each, a fresh
# environment with that torch and the wheel, and the tests of the source package beside it.
#
#   make wheel && tests/scripts/wheel.sh 2.10.0 2.14.1        PYTHON: the wheel's Python; default python3
set -euo pipefail
cd "$(dirname "$0")/../.."
(($#)) || { sed -n '2,5s/^# \?//p' tests/scripts/wheel.sh; exit 2; }

wheel=$(echo "$PWD"/dist/*.whl)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source"
tar -xzf dist/*.tar.gz -C "$work/source" --strip-components=1
# The tests shall find the wheel's package; the empty folders are for setup.py, which they call too.
find "$work/source/sspcab_cuda" -type f -delete

for version; do
  environment=$work/torch-$version
  "${PYTHON:-python3}" -m venv "$environment"
  "$environment/bin/pip" install --disable-pip-version-check --quiet "torch==$version" \
    "$wheel[test]" "setuptools>=77.0.3" ninja pybind11 # the last three for test_setup.py
  echo "wheel.sh: $(basename "$wheel") under torch $version"
  (cd "$work/source" && PATH="$environment/bin:$PATH" python -m pytest)
  rm -rf "$environment"
done
