#pragma once
// Instruction sets as types. Kernels are templates over one of these tags and are compiled once per set with its compiler flags; the tag
// in the mangled name keeps the variants apart. The choice is made once at run time and capped by TWINLENS_MAX_ISA
// (scalar | avx2 | avx512 | avx512bf16 | avx512amx | neon).

namespace twinlens {

struct Scalar {
  static constexpr int kWidth = 4;  // floats per vector: the baseline of the architecture (SSE2 on x86-64)
  static constexpr bool kBf16Dot = false;
};
struct Avx2 {
  static constexpr int kWidth = 8;
  static constexpr bool kBf16Dot = false;
};
struct Avx512 {
  static constexpr int kWidth = 16;
  static constexpr bool kBf16Dot = false;
};
struct Avx512Bf16 {
  static constexpr int kWidth = 16;
  static constexpr bool kBf16Dot = true;
};
struct Avx512Amx {  // products in tile registers; what is left is Avx512Bf16
  static constexpr int kWidth = 16;
  static constexpr bool kBf16Dot = true;
};
struct Neon {
  static constexpr int kWidth = 4;
  static constexpr bool kBf16Dot = false;
};

enum class Isa : unsigned char { scalar, avx2, avx512, avx512bf16, avx512amx, neon };

const char* name_of(Isa isa);
// The best set this build has code for and this processor runs, no better than TWINLENS_MAX_ISA. Throws ConfigError where that names no
// set, at the first kernel if nothing asks before.
Isa active_isa();
// Caps the set from now on (tests and benchmarks compare sets in one process). Throws ConfigError when the build or processor lacks it.
void set_active_isa(Isa isa);
// Whether the set multiplies pairs of bf16 and adds in f32; kernels with UsesBf16::products then take bf16 that way.
constexpr bool multiplies_bf16_pairs(Isa isa) { return isa == Isa::avx512bf16 || isa == Isa::avx512amx; }
// Sets that are compiled in and that this processor runs, worst first.
int available_isas(Isa (&out)[5]);  // no processor has more than five

// What a kernel has of the instructions for bf16, `kBf16` in its argument struct: none; the one that rounds f32 to it; products, too. For
// Avx512Bf16 and Avx512Amx only kernels are compiled that gain there; the others are given the body of the best set below.
enum class UsesBf16 : unsigned char { no, rounding, products };

// Calls f(tag) with the tag type of the active set.
template <UsesBf16 Use, class F>
inline void with_isa(F&& f) {
  switch (active_isa()) {
#if defined(TWINLENS_HAS_AVX2)
    case Isa::avx2: return f(Avx2{});
#endif
#if defined(TWINLENS_HAS_AVX512)
    case Isa::avx512: return f(Avx512{});
#endif
#if defined(TWINLENS_HAS_AVX512BF16)
    case Isa::avx512bf16:
      if constexpr (Use != UsesBf16::no) {
        return f(Avx512Bf16{});
      } else {
        return f(Avx512{});
      }
#endif
#if defined(TWINLENS_HAS_AVX512AMX)
    case Isa::avx512amx:
      if constexpr (Use == UsesBf16::products) {
        return f(Avx512Amx{});
      } else if constexpr (Use == UsesBf16::rounding) {
        return f(Avx512Bf16{});
      } else {
        return f(Avx512{});
      }
#endif
#if defined(TWINLENS_HAS_NEON)
    case Isa::neon: return f(Neon{});
#endif
    default: return f(Scalar{});
  }
}

}  // namespace twinlens
