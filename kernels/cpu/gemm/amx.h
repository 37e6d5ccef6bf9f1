#pragma once
// The micro-kernel in tile registers (Intel, "Intel Advanced Matrix Extensions", Software Developer's Manual, volume 1, chapter 18): a
// tile is 16 rows of 64 bytes, and one instruction multiplies 16 x 32 bf16 by 32 x 16, 8192 multiply-adds, into f32 sums. Sums are taken
// in the order of the depth and denormal results are 0.
//
// Only for files that are compiled for Avx512Amx. The intrinsics do not tell the compiler that they touch memory: fences stand where
// ordinary loads and stores meet them.

#include <immintrin.h>

#include "kernels/cpu/vec/prefetch.h"
#include "kernels/cpu/vec/vec.h"

namespace twinlens::gemm {

TWINLENS_INLINE void memory_fence_for_compiler() { asm volatile("" ::: "memory"); }

// All eight registers: 16 rows of 64 bytes.
TWINLENS_INLINE void configure_tiles() {
  struct alignas(64) Config {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  const Config config;
  memory_fence_for_compiler();
  _tile_loadconfig(&config);
}

// The sums in registers 0 to 3, of tile[32][16 Vectors]: zero, or what the tile holds; and back.
template <int Vectors>
TWINLENS_INLINE void begin_sums(const float* tile, bool more) {
  static_assert(Vectors == 1 || Vectors == 2);
  constexpr std::int64_t row = Vectors * 64;  // bytes
  memory_fence_for_compiler();
  if (more) {
    _tile_loadd(0, tile, row);
    _tile_loadd(1, tile + Vectors * 256, row);
    if constexpr (Vectors == 2) {
      _tile_loadd(2, tile + 16, row);
      _tile_loadd(3, tile + Vectors * 256 + 16, row);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (Vectors == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
}
template <int Vectors>
TWINLENS_INLINE void end_sums(float* tile) {
  constexpr std::int64_t row = Vectors * 64;
  _tile_stored(0, tile, row);
  _tile_stored(1, tile + Vectors * 256, row);
  if constexpr (Vectors == 2) {
    _tile_stored(2, tile + 16, row);
    _tile_stored(3, tile + Vectors * 256 + 16, row);
  }
  memory_fence_for_compiler();
}

// tile[32][16 Vectors] = sum over words, or goes on with it; a[32][words] as TileRows says, b[words][16 Vectors] in pairs of bf16. A tick
// of what is to be asked for meanwhile with every step.
template <int Vectors>
TWINLENS_INLINE void multiply_tiles(std::int64_t words, const TileRows& a, const float* b, float* tile, bool more, Prefetch* ahead) {
  constexpr std::int64_t row = Vectors * 64;  // bytes from one row of b to the next
  const char *upper = static_cast<const char*>(a.data), *lower = upper + 16 * a.row_bytes;
  begin_sums<Vectors>(tile, more);
  for (std::int64_t k = 0; k < words; k += 16) {
    if (ahead != nullptr) ahead->tick();
    _tile_loadd(4, upper, a.row_bytes);
    _tile_loadd(6, b, row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, lower, a.row_bytes);
    _tile_dpbf16ps(1, 5, 6);
    if constexpr (Vectors == 2) {
      _tile_loadd(7, b + 16, row);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    upper += a.step_bytes;
    lower += a.step_bytes;
    b += Vectors * 256;
  }
  end_sums<Vectors>(tile);
}

// Registers 4 and 5 from 32 rows of a, 6 and 7 from 16 rows of b; and their products.
TWINLENS_INLINE void load_rows_of_a(const float* a) {
  _tile_loadd(4, a, 64);
  _tile_loadd(5, a + 256, 64);
}
template <int Vectors>
TWINLENS_INLINE void load_rows_of_b(const float* b) {
  _tile_loadd(6, b, Vectors * 64);
  if constexpr (Vectors == 2) _tile_loadd(7, b + 16, Vectors * 64);
}
template <int Vectors>
TWINLENS_INLINE void add_products() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 5, 6);
  if constexpr (Vectors == 2) {
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}
template <std::int64_t Floats>
TWINLENS_INLINE void prefetch_floats(const float* x) {
#pragma GCC unroll 48
  for (std::int64_t i = 0; i < Floats; i += 16) __builtin_prefetch(x + i, 0, 3);
}

// The small products of a step of f32 in thirds (split.h), five of the six, while the next step is asked for.
template <int Vectors>
TWINLENS_INLINE void add_small_products(const float* a, const float* b) {
  constexpr std::int64_t rows = 512, columns = Vectors * 256;  // of one part of a step
  const float *high_a = a, *middle_a = a + rows, *low_a = a + 2 * rows;
  const float *high_b = b, *middle_b = b + columns, *low_b = b + 2 * columns;
  load_rows_of_a(high_a);
  load_rows_of_b<Vectors>(low_b);
  add_products<Vectors>();
  prefetch_floats<rows>(a + 3 * rows);
  load_rows_of_b<Vectors>(middle_b);
  add_products<Vectors>();
  prefetch_floats<rows>(a + 4 * rows);
  load_rows_of_a(middle_a);
  add_products<Vectors>();
  prefetch_floats<rows>(a + 5 * rows);
  load_rows_of_b<Vectors>(high_b);
  add_products<Vectors>();
  prefetch_floats<columns>(b + 3 * columns);
  load_rows_of_a(low_a);
  add_products<Vectors>();
  prefetch_floats<columns>(b + 4 * columns);
  prefetch_floats<columns>(b + 5 * columns);
}

// tile[32][16 Vectors] = sum over words of a and b in thirds, or goes on with it. The large products of a few steps come behind the small
// ones of all of them, which so are added up before the sums are large.
//
// A tile that is stored after none was for 700 ns takes 300 ns (measured, family 6 model 167; the same store after 650 ns takes 10): each
// step stores one to nowhere, 2 to 4 % of a product.
template <int Vectors>
TWINLENS_INLINE void multiply_thirds(std::int64_t words, const float* a, const float* b, float* tile, bool more) {
  constexpr std::int64_t step_of_a = 3 * 512, step_of_b = 3 * Vectors * 256, steps_at_once = 4;
  alignas(64) float nowhere[256];
  begin_sums<Vectors>(tile, more);
  for (std::int64_t steps = words / 48; steps > 0; steps -= steps_at_once) {
    const std::int64_t n = steps < steps_at_once ? steps : steps_at_once;
    for (std::int64_t i = 0; i < n; ++i) {
      add_small_products<Vectors>(a + i * step_of_a, b + i * step_of_b);
      _tile_stored(4, nowhere, 64);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      load_rows_of_a(a + i * step_of_a);
      load_rows_of_b<Vectors>(b + i * step_of_b);
      add_products<Vectors>();
    }
    a += n * step_of_a;
    b += n * step_of_b;
  }
  end_sums<Vectors>(tile);
}

}  // namespace twinlens::gemm
