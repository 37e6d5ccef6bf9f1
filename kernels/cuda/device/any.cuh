#pragma once
// Packs of neighbouring elements whose type is known at run time: one kernel for all combinations of types where memory is what it
// waits for. The branch is the same for all threads.

#include "kernels/cuda/device/element.cuh"

namespace twinlens::cuda {

template <int W>
__device__ inline void load_any(const void* p, DType t, std::int64_t at, std::int64_t n, bool aligned, float (&out)[W]) {
  if (t == DType::f32) {
    load_pack(static_cast<const float*>(p) + at, n, aligned, out);
  } else if (t == DType::bf16) {
    load_pack(static_cast<const bf16*>(p) + at, n, aligned, out);
  } else {
    load_pack(static_cast<const f16*>(p) + at, n, aligned, out);
  }
}

template <int W>
__device__ inline void store_any(const float (&in)[W], void* p, DType t, std::int64_t at, std::int64_t n, bool aligned) {
  if (t == DType::f32) {
    store_pack(in, static_cast<float*>(p) + at, n, aligned);
  } else if (t == DType::bf16) {
    store_pack(in, static_cast<bf16*>(p) + at, n, aligned);
  } else {
    store_pack(in, static_cast<f16*>(p) + at, n, aligned);
  }
}

// Row and pack of a thread; the narrow division where it serves.
struct Place {
  std::int64_t row, pack;
};
__device__ inline Place place_of(std::int64_t i, std::int64_t packs) {
  if (i <= 0xFFFFFFFFLL && packs <= 0xFFFFFFFFLL) {
    const auto narrow = static_cast<unsigned>(i), divisor = static_cast<unsigned>(packs);
    return {narrow / divisor, narrow % divisor};
  }
  return {i / packs, i % packs};
}

// x as it reads after being stored in type t.
__device__ inline float rounded_to(DType t, float x) {
  return t == DType::f32 ? x : t == DType::bf16 ? to_float(from_float<bf16>(x)) : to_float(from_float<f16>(x));
}

}  // namespace twinlens::cuda
