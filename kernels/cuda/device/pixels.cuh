#pragma once
// NHWC maps in device code: a thread takes a few neighbouring channels of one pixel.

#include <initializer_list>

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/geometry.h"

namespace twinlens::cuda {

// sum += the W elements at p, which lie on a word.
template <int W, class T>
__device__ inline void add_pack(const T* p, float (&sum)[W]) {
  float v[W];
  load_pack(p, W, true, v);
#pragma unroll
  for (int k = 0; k < W; ++k) sum[k] += v[k];
}

// Calls f(Channels<W>{}) with the channels of a thread: a word of 16 bytes where pixels consist of such words, else 1.
template <int W>
struct Channels {
  static constexpr int value = W;
};
template <class T, class F>
void visit_channel_packs(std::int64_t channels, std::initializer_list<const void*> maps, F&& f) {
  bool packs = channels % kPack<T> == 0;
  for (const void* map : maps) packs = packs && is_aligned(map);
  if (packs) {
    f(Channels<kPack<T>>{});
  } else {
    f(Channels<1>{});
  }
}

// Calls f(TypeTag<Word>{}) for a word of 1, 2, 4, 8 or 16 bytes.
template <class F>
void visit_word(std::int64_t bytes, F&& f) {
  switch (bytes) {
    case 1: return f(TypeTag<unsigned char>{});
    case 2: return f(TypeTag<unsigned short>{});
    case 4: return f(TypeTag<unsigned>{});
    case 8: return f(TypeTag<uint2>{});
    default: return f(TypeTag<uint4>{});
  }
}

}  // namespace twinlens::cuda
