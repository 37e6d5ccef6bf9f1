#!/usr/bin/env bash
# Installs what is missing, builds Release and runs every test.
#
#   tests/run.sh            build in $TWINLENS_BUILD_DIR (default build/release), run the tests
#   tests/run.sh --full     also what CI has no time for: the slow tests, and the clang, sanitizer and NEON suites without shortening
#   TWINLENS_CUDA=ON tests/run.sh   with the CUDA half, on the card where there is one
#   tests/run.sh -R attention    further arguments go to ctest
#
# Can be run again at any time, and twice at once with different TWINLENS_BUILD_DIR.
set -euo pipefail
cd "$(dirname "$0")/.."
full=0
if [[ ${1:-} == --full ]]; then
  full=1
  shift
elif [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '2,9p' "$0" | cut -c3-
  exit 0
fi

build=${TWINLENS_BUILD_DIR:-build/release}
cores=$(nproc)
export OMP_WAIT_POLICY=passive # tests run side by side: waiting threads must not take the cores from the others
export CMAKE_COLOR_DIAGNOSTICS=${CMAKE_COLOR_DIAGNOSTICS:-OFF}

tests/packages.sh build tests
[[ $full == 1 ]] && tests/packages.sh ci neon
# The CUDA half where TWINLENS_CUDA says so; otherwise as this folder was configured, at first without.
cuda=()
if [ -n "${TWINLENS_CUDA:-}" ] || [ ! -f "$build/CMakeCache.txt" ]; then cuda=("-DTWINLENS_CUDA=${TWINLENS_CUDA:-OFF}"); fi
# The same options as examples/quickstart.sh, which needs no tests, so that the two share what is built.
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "${cuda[@]}" -DTWINLENS_UNITY_BUILD=ON -DTWINLENS_BUILD_TESTS=ON -DTWINLENS_BUILD_BENCH=ON \
  -DTWINLENS_WERROR="${TWINLENS_WERROR:-OFF}"
cmake --build "$build" --parallel "$cores"

slow=(--label-exclude '^(full|timed)$')
[[ $full == 1 ]] && slow=()
ctest --test-dir "$build" --parallel "$cores" --output-on-failure --no-tests=error "${slow[@]}" "$@"

if [[ $full == 1 ]]; then
  source tests/parts.sh
  TWINLENS_FULL=1 run_parts format_part clang_part address_part thread_part cuda_part neon_part bench_part
fi
