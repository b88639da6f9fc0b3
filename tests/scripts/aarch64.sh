#!/usr/bin/env bash
# Cross-builds for aarch64 against the oldest torch, a warning being an error, and runs a selection
# of the tests in an emulator. Debian's Python and torch for aarch64 go into a folder of their own.
#
#   make aarch64            PYTHON: whose pip fetches; default python3
. "$(dirname "$0")/fresh.sh"

command -v apt-get >/dev/null || skip "no apt-get to fetch a Python for aarch64 with"
need qemu-aarch64 qemu-user
need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu

mkdir -p "$work"/apt/{lists,archives}/partial "$work/root" "$work/headers/aarch64-linux-gnu"
touch "$work/apt/status"
apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
  -o Dir::State="$work/apt" -o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt")
"${apt[@]}" update && "${apt[@]}" install -y --download-only --no-install-recommends \
  python3 libpython3-dev libstdc++6 >/dev/null || skip "apt-get has no Python for aarch64"
for package in "$work"/apt/archives/*.deb; do dpkg -x "$package" "$work/root"; done
python=(qemu-aarch64 -cpu neoverse-n1 -L "$work/root" "$work/root/usr/bin/python3")
version=$("${python[@]}" -c 'import sys; print("{}.{}".format(*sys.version_info))')

# torch's own requirements are named: pip would take them for the machine that it runs on.
"${PYTHON:-python3}" -m venv "$work/host"
"$work/host/bin/pip" install --quiet ninja
fetch=("$work/host/bin/pip" install --quiet --target "$work/packages" --only-binary=:all:
  --python-version "$version")
for glibc in 2_28 2_27 2_17; do fetch+=(--platform "manylinux_${glibc}_aarch64"); done
"${fetch[@]}" --no-deps "torch==$oldest_torch"
"${fetch[@]}" filelock fsspec jinja2 networkx sympy typing-extensions numpy "setuptools>=77.0.3" \
  pybind11 pytest hypothesis
export PYTHONPATH=$work/packages PATH="$work/host/bin:$PATH"
cd "$work/source"

say "$(aarch64-linux-gnu-g++ --version | head -n 1), torch $oldest_torch, Python $version"
# Python's header includes another by the name of the architecture; no other header of that folder
# shall go before the compiler's own.
ln -s "$work/root/usr/include/aarch64-linux-gnu/python$version" "$work/headers/aarch64-linux-gnu/"
CPATH="$work/root/usr/include/python$version:$work/headers" CXX="aarch64-linux-gnu-g++ -Werror" \
  "${python[@]}" setup.py build_ext --inplace >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"${python[@]}" -m pytest -q -p no:cacheprovider tests/operators/test_{forward,backward,layouts,nan}.py
