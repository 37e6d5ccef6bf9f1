#pragma once
// Element types. Storage varies; arithmetic and accumulation are in f32 at least (docs/numerics.md).
//
// Included by the files that are compiled once per instruction set, so nothing here may emit a weak symbol: every function is
// constexpr and always inlined.

#include <cstdint>

// What device code calls, too. CUDA's headers are not needed for it: the compiler of .cu files knows the words.
#if defined(__CUDACC__)
#define TWINLENS_HOST_DEVICE __host__ __device__
#else
#define TWINLENS_HOST_DEVICE
#endif

namespace twinlens {

enum class DType : std::uint8_t { f32, bf16, f16, i64, i32, u8, boolean };

struct bf16 {
  std::uint16_t bits;
};
struct f16 {
  std::uint16_t bits;
};
static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2);

[[gnu::always_inline]] constexpr std::int64_t size_of(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::i64: return 8;
    case DType::u8:
    case DType::boolean: return 1;
  }
  return 0;
}

[[gnu::always_inline]] constexpr const char* name_of(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::i64: return "i64";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
    case DType::boolean: return "bool";
  }
  return "?";
}

[[gnu::always_inline]] constexpr bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

template <class T>
struct TypeTag {
  using type = T;
};

// An element of DType::boolean in memory, apart from u8 by its type.
struct Boolean {
  std::uint8_t value;
};

// Without the fraction; the nearest integer there is where that does not fit, and 0 of NaN. (C++ leaves both open, processors differ.)
template <class Int>
[[gnu::always_inline]] TWINLENS_HOST_DEVICE constexpr Int to_integer(double x) {
  constexpr bool is_signed = static_cast<Int>(-1) < static_cast<Int>(0);
  constexpr std::uint64_t largest = ~std::uint64_t{0} >> (64 - 8 * sizeof(Int) + (is_signed ? 1 : 0));
  constexpr Int most = static_cast<Int>(largest), least = is_signed ? static_cast<Int>(-most - 1) : Int{0};
  constexpr double past = 2.0 * static_cast<double>(largest / 2 + 1);
  if (x >= past) return most;
  if (x <= static_cast<double>(least)) return least;
  return x == x ? static_cast<Int>(x) : Int{0};
}

// Calls f(TypeTag<float|bf16>{}): the only dispatch on the element type of a float kernel on the CPU, where f16 is a storage type
// (copy converts it) and not one to compute in.
template <class F>
[[gnu::always_inline]] inline void visit_float(DType t, F&& f) {
  if (t == DType::bf16) {
    f(TypeTag<bf16>{});
  } else {
    f(TypeTag<float>{});
  }
}

}  // namespace twinlens
