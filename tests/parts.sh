# The parts of .ci/run beside the suite itself, as functions; source this from the top of the tree. TWINLENS_FULL=1 runs each whole, as
# `tests/run.sh --full` does; otherwise they are cut to what fits CI's hour on 2 cold cores, and say what they leave out.
#
# Every part has its own build folder under $TWINLENS_PARTS_DIR (default build/ci).

parts_dir=${TWINLENS_PARTS_DIR:-build/ci}
cores=$(nproc)

# A part is skipped, with a message, where its tool is not there.
needs() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null && continue
    echo "skipped: no $tool on this machine"
    return 1
  done
}

# (The card's kernels on the host are in the suite; what is compiled otherwise takes them when all is run.)
configure() { # folder, then options for cmake
  local folder=$1 emulated=OFF
  shift
  is_full && emulated=ON
  cmake -S . -B "$parts_dir/$folder" -G Ninja -DTWINLENS_WERROR=ON "-DTWINLENS_EMULATED_CARD=$emulated" "$@" >"$parts_dir/$folder.configure.log" 2>&1 || {
    cat "$parts_dir/$folder.configure.log"
    return 1
  }
}

build() { # folder, then targets
  local folder=$1
  shift
  cmake --build "$parts_dir/$folder" --parallel "$cores" --target "${@:-all}"
}

run_tests() { # folder, then options for ctest
  local folder=$1
  shift
  OMP_WAIT_POLICY=passive ctest --test-dir "$parts_dir/$folder" --parallel "$cores" --output-on-failure --no-tests=error "$@"
}

has_target() { ninja -C "$parts_dir/$1" -t query "$2" >/dev/null 2>&1; }

is_full() { [[ ${TWINLENS_FULL:-0} == 1 ]]; }

# --- the parts --------------------------------------------------------------------------------------------------------------------------

format_part() {
  needs clang-format || return 0
  git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run --Werror
}

# What clang makes of the tree as it is released. CI builds and runs the op cases and what takes seconds: the suite itself has run with gcc,
# and the sanitizers' part compiles all of the tree with clang.
clang_part() {
  needs clang++ || return 0
  configure clang -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=clang++ -DTWINLENS_CUDA=OFF || return
  if is_full; then
    build clang && run_tests clang
    return
  fi
  echo "clang: the op cases, where compilers differ most, and tests labelled 'smoke'; tests/run.sh --full runs all"
  build clang test_ops test_kernels test_adding_an_op || return
  run_tests clang --label-regex '^smoke$' && run_tests clang --tests-regex '^test_ops:'
}

# The best instruction set of this machine, and those that it is made of (TWINLENS_ISAS); nothing where scalar is the best.
best_sets() {
  local flags
  flags=" $(grep -m 1 -E '^(flags|Features)' /proc/cpuinfo || true) "
  case $flags in
    *" amx_bf16 "*) echo "avx512;avx512bf16;avx512amx" ;;
    *" avx512_bf16 "*) echo "avx512;avx512bf16" ;;
    *" avx512bw "*) echo "avx512" ;;
    *" avx2 "*) echo "avx2" ;;
    *" asimd "*) echo "neon" ;;
  esac
}

# AddressSanitizer and UndefinedBehaviorSanitizer, by clang, which knows more kinds of undefined behaviour than gcc and takes less time over
# instrumented code: the whole tree, each source by itself, with warnings as errors. Op cases try every compiled set up to the best by
# themselves, so one run covers scalar and the best one; what else is near kernels is run again on scalar. The program, the fake card and
# whole runs of training call no kernel in a way that these do not: again on scalar, like middle sets, they are left to --full.
address_part() {
  needs clang++ || return 0
  local sets
  sets=$(best_sets)
  is_full && sets="avx2;avx512;avx512bf16;avx512amx;neon"
  echo "address: scalar${sets:+ and $sets}"
  configure address -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-g1 -DTWINLENS_SANITIZE=address,undefined -DTWINLENS_CUDA=OFF \
    "-DTWINLENS_ISAS=$sets" || return
  build address || return
  # (clang's OpenMP keeps what its threads had.)
  echo 'leak:libomp.so' >"$parts_dir/known_leaks"
  local -x LSAN_OPTIONS="suppressions=$(realpath "$parts_dir")/known_leaks:print_suppressions=0"
  # (The largest losses are for their figures, and go through the code of the smaller ones for an hour.)
  local options=(--label-exclude '^(house|timed)$') left_out='^test_info_nce:65,536 pairs|^test_info_nce:.*for large batches'
  if ! is_full; then
    options=(--label-exclude '^(full|house|timed)$')
    # (Whole models of others are for their numbers, and go through the layers of small ones, as larger losses do; plans of memory are made
    # for other sizes.)
    left_out+='|^test_info_nce:.*for batches of several blocks|^test_models:parity: (ViT-B-32|RN50)$|^test_clip:the plan.s peak is that of the step: (deep and|all logits|a large)'
  fi
  if [[ -n $sets ]]; then
    run_tests address "${options[@]}" --exclude-regex "$left_out" || return
    left_out+='|^test_(ops|emulated_[a-z]*):'
    is_full || options+=(--tests-regex '^test_(kernels|core|info_nce|nn|adding_an_op|models):|^test_clip:(towers|20 AdamW|a ResNet|AttentionPool)')
  fi
  # (Whole models, and steps whose memory is measured, take many minutes in scalar code.)
  TWINLENS_MAX_ISA=scalar run_tests address "${options[@]}" --exclude-regex "$left_out|^test_models:parity|^test_clip:the plan.s peak"
}

# ThreadSanitizer over what starts threads: the loader, and users of one model. libgomp is not instrumented and would be reported: with
# one OpenMP thread it starts no team.
thread_part() {
  configure thread -DTWINLENS_WERROR=OFF -DTWINLENS_UNITY_BUILD=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-g1 -DTWINLENS_SANITIZE=thread -DTWINLENS_CUDA=OFF -DTWINLENS_ISAS= \
    -DTWINLENS_EMULATED_CARD=OFF -DTWINLENS_BUILD_BENCH=OFF -DTWINLENS_BUILD_EXAMPLES=OFF || return
  has_target thread test_clip || {
    echo "skipped: no target test_clip"
    return 0
  }
  build thread test_clip || return
  # (Catch2's exit status of a listing is the number of cases.)
  if "$parts_dir/thread/bin/test_clip" "[loader],[threads]" --list-test-names-only >/dev/null; then
    echo "skipped: test_clip has no cases tagged [loader] or [threads]"
    return 0
  fi
  OMP_NUM_THREADS=1 TSAN_OPTIONS=halt_on_error=1 "$parts_dir/thread/bin/test_clip" "[loader],[threads]"
}

# The CUDA half compiles for every target without warnings and links; its tests skip themselves where there is no card.
cuda_part() {
  if ! command -v nvcc >/dev/null && [[ ! -x /usr/local/cuda/bin/nvcc ]]; then
    echo "skipped: no nvcc on this machine"
    return 0
  fi
  configure cuda -DTWINLENS_UNITY_BUILD=ON -DCMAKE_BUILD_TYPE=Release -DTWINLENS_CUDA=ON -DTWINLENS_ISAS= || return
  build cuda test_ops test_kernels || return
  if is_full; then
    build cuda && run_tests cuda --label-exclude '^(full|house|timed)$'
  else
    run_tests cuda --tests-regex '^test_kernels:'
  fi
}

# NEON: compiled with a cross compiler, and every op case run on it by an emulator, with one thread, since it is slow at handing over between
# several.
neon_part() {
  needs aarch64-linux-gnu-g++ qemu-aarch64 || return 0
  # (Libraries of the clip floor are found as this machine has them; nothing that is built here links them.)
  local libraries
  libraries=/usr/lib/$(uname -m)-linux-gnu
  configure neon -DTWINLENS_UNITY_BUILD=ON "-DCMAKE_LIBRARY_PATH=$libraries" "-Dfmt_DIR=$libraries/cmake/fmt" -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu" \
    -DTWINLENS_CUDA=OFF -DTWINLENS_EMULATED_CARD=OFF -DTWINLENS_BUILD_BENCH=OFF -DTWINLENS_BUILD_EXAMPLES=OFF || return
  build neon test_ops test_kernels || return
  local cases='^test_ops:|^test_kernels:elementary functions'
  is_full && cases='^test_(ops|kernels):'
  OMP_NUM_THREADS=1 run_tests neon --tests-regex "$cases"
}

# Every benchmark row runs once: this looks for rows that fail, not at times.
bench_part() {
  local program=${TWINLENS_BUILD_DIR:-build/release}/bin/twinlens_bench
  if [[ ! -x $program ]]; then
    echo "skipped: no $program"
    return 0
  fi
  "$program" --benchmark_min_time=0 --benchmark_format=json >"$parts_dir/bench.json" || return
  echo "$(grep -c '"real_time"' "$parts_dir/bench.json") rows"
  ! grep -n '"error_occurred": true' "$parts_dir/bench.json"
}

# Runs the parts in order; prints the minutes of each; stops at the first that fails.
run_parts() {
  mkdir -p "$parts_dir"
  local part
  for part in "$@"; do
    timed "${part%_part}" "$part" || return
  done
}

timed() { # name, command
  local name=$1 start=$SECONDS
  shift
  echo "=== $name"
  if "$@"; then
    echo "=== $name: $(minutes $((SECONDS - start)))"
  else
    echo "=== $name: FAILED after $(minutes $((SECONDS - start)))"
    return 1
  fi
}

minutes() { printf '%d.%d min' $(($1 / 60)) $(($1 % 60 / 6)); }
