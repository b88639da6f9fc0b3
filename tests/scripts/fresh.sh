# Sourced by the scripts that build in a folder of their own, with what they have to fetch there:
# a copy of the sources in $work/source, without the extension that may lie among them.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=$(basename "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

oldest_torch=$(sed -n 's/^dependencies = \["torch>=\(.*\)"\]$/\1/p' pyproject.toml).0
export SSPCAB_NO_CUDA=1 FORCE_CUDA='' PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
mkdir "$work/source"
tar -c --exclude='_C.*.so' csrc sspcab_cuda tests setup.py build_support.py pyproject.toml README.md \
  LICENSE | tar -x -C "$work/source"

say() { printf '%s: %s\n' "$name" "$*"; }
skip() {
  say "************ SKIPPED: $* ************"
  exit
}

# need COMMAND PACKAGE: installs Debian's package if the command isn't there.
need() {
  command -v "$1" >/dev/null && return
  command -v apt-get >/dev/null || skip "no $1, and no apt-get to install $2"
  [[ $(id -u) == 0 ]] || skip "no $1: apt install $2"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$2" >/dev/null
}
