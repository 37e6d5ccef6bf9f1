#include "twinlens/kernels/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>
#include <string_view>

#include "twinlens/kernels/error.h"

#if defined(TWINLENS_HAS_AVX512AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace twinlens {
namespace {

#if defined(TWINLENS_HAS_AVX512AMX)
// Whether the processor has tile registers that multiply bf16, and Linux lets this process use them: their 8 KiB of state are granted on
// request (arch_prctl(2), Documentation/arch/x86/xstate.rst), for all threads.
bool may_use_tiles() {
  static const bool granted = [] {
    constexpr unsigned kAmxBf16 = 1U << 22, kAmxTile = 1U << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
}
#endif

bool runs_here(Isa isa) {
  switch (isa) {
    case Isa::scalar: return true;
#if defined(__x86_64__)
#if defined(TWINLENS_HAS_AVX2)
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#endif
#if defined(TWINLENS_HAS_AVX512)
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
#endif
#if defined(TWINLENS_HAS_AVX512BF16)
    case Isa::avx512bf16: return runs_here(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
#endif
#if defined(TWINLENS_HAS_AVX512AMX)
    case Isa::avx512amx: return runs_here(Isa::avx512bf16) && may_use_tiles();
#endif
#endif
#if defined(TWINLENS_HAS_NEON)
    case Isa::neon: return true;
#endif
    default: return false;
  }
}

Isa parse(std::string_view name) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::avx512amx, Isa::neon}) {
    if (name == name_of(isa)) return isa;
  }
  throw ConfigError("TWINLENS_MAX_ISA: unknown instruction set '" + std::string(name) +
                    "'; environment; use scalar, avx2, avx512, avx512bf16, avx512amx or neon");
}

Isa best() {
  Isa sets[5];
  const int count = available_isas(sets);
  const char* cap = std::getenv("TWINLENS_MAX_ISA");
  if (cap == nullptr || *cap == 0) return sets[count - 1];
  const Isa limit = parse(cap);
  Isa chosen = Isa::scalar;
  for (int i = 0; i < count; ++i) {
    if (sets[i] <= limit) chosen = sets[i];
  }
  return chosen;
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa{best()};
  return isa;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512bf16: return "avx512bf16";
    case Isa::avx512amx: return "avx512amx";
    case Isa::neon: return "neon";
  }
  return "?";
}

int available_isas(Isa (&out)[5]) {
  int count = 0;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::avx512amx, Isa::neon}) {
    if (runs_here(isa)) out[count++] = isa;
  }
  return count;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

void set_active_isa(Isa isa) {
  if (!runs_here(isa)) {
    throw ConfigError(std::string("instruction set ") + name_of(isa) +
                      " is not available; this build or this processor lacks it; choose another");
  }
  active().store(isa, std::memory_order_relaxed);
}

}  // namespace twinlens
