#!/usr/bin/env bash
# The CPU part under sanitizers: every operator on random problems (random_problems.py), forward and
# backward, with the kernels of each instruction set that this processor has.
#
#   tests/scripts/sanitizers.sh address thread      PYTHON: default python3; PROBLEMS: default 60 each
#
# address  AddressSanitizer and UndefinedBehaviorSanitizer. Leaks aren't looked for: Python and PyTorch
#          keep what they never free.
# thread   ThreadSanitizer, two threads calling at once, each with OpenMP's threads (see
#          openmp_regions.cpp). Memory that Python and PyTorch touch themselves isn't watched: they
#          aren't instrumented.
set -euo pipefail
cd "$(dirname "$0")/../.."
(($#)) || { sed -n '2,12s/^# \?//p' tests/scripts/sanitizers.sh; exit 2; }

python=$(realpath -s "$(command -v "${PYTHON:-python3}")")
torch=$("$python" -c "import torch; print(torch.__path__[0])")
library() { "${CXX:-g++}" -print-file-name="$1"; }

for kind; do
  tree=build/sanitizers/$kind
  case $kind in
    address)
      flags="-fsanitize=address,undefined -fno-sanitize-recover=all"
      preload="$(library libasan.so) $(library libstdc++.so)" # exceptions are looked for in the latter
      arguments=()
      ;;
    thread)
      flags=-fsanitize=thread
      preload="$(library libtsan.so) $PWD/$tree/openmp_regions.so $(echo "$torch"/lib/libgomp*)"
      arguments=(--threads 2)
      ;;
    *) echo "sanitizers.sh: must be address or thread; got $kind" >&2; exit 2 ;;
  esac

  echo "sanitizers.sh: building $tree"
  mkdir -p "$tree"
  rm -rf "$tree"/{csrc,sspcab_cuda,tests}
  cp -a csrc sspcab_cuda tests setup.py build_support.py pyproject.toml README.md LICENSE "$tree"
  rm -f "$tree"/sspcab_cuda/_C.*
  (
    cd "$tree"
    # Without optimisation: all accesses are watched that are written down.
    SSPCAB_NO_CUDA=1 FORCE_CUDA='' DEBUG=1 CFLAGS=$flags LDFLAGS=$flags \
      "$python" setup.py build_ext --inplace --force >build.log 2>&1 || { cat build.log; exit 1; }
    if [[ $kind == thread ]]; then
      "${CXX:-g++}" $flags -shared -fPIC tests/scripts/openmp_regions.cpp -o openmp_regions.so
    fi
  )
  for capability in baseline avx2 avx512; do
    (
      cd "$tree"
      # Every thread of OpenMP's, also where there are fewer processors.
      SSPCAB_CPU_CAPABILITY=$capability OMP_NUM_THREADS=3 LD_PRELOAD=$preload PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
        TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1 \
        "$python" -m tests.scripts.random_problems --problems "${PROBLEMS:-60}" "${arguments[@]}" \
        >problems.log 2>&1 || { tail -n 100 problems.log; exit 1; }
      grep -qx "kernels: $capability" problems.log ||
        { echo "sanitizers.sh: $kind: SKIPPED: this processor has no $capability"; exit; }
      echo "sanitizers.sh: $kind, $capability: $(grep -c ^Problem problems.log) problems are clean"
    )
  done
done
