// One launch over the whole flat block. A block of threads takes kOptimizerChunk neighbouring elements and looks up in the segment table
// which parameters lie there, so that a thousand small parameters cost as little as one large one.

#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/adamw.h"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kThreads = 256;
constexpr int W = 4;

// The first segment that ends after `position`. Segments lie in order and do not overlap, so their ends are in order, too.
__device__ std::int64_t first_segment(const OptimizerSegment* segments, std::int64_t count, std::int64_t position) {
  std::int64_t low = 0, high = count;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (segments[middle].offset + segments[middle].size > position) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Calls update(i, n, whole) for packs that cover [begin, end): n elements from i, `whole` where they are W and may be moved as one word.
// Packs start at multiples of W of the flat block, wherever segments do.
template <class F>
__device__ void for_packs(std::int64_t begin, std::int64_t end, bool aligned, F update) {
  for (std::int64_t pack = begin / W + threadIdx.x; pack * W < end; pack += kThreads) {
    const std::int64_t from = pack * W < begin ? begin : pack * W;
    const std::int64_t to = pack * W + W < end ? pack * W + W : end;
    update(from, static_cast<int>(to - from), aligned && to - from == W);
  }
}

template <class Args, class Rates, class F>
__device__ void for_segments(const Args& a, const Rates& rates, F update) {
  const std::int64_t begin = std::int64_t{blockIdx.x} * kOptimizerChunk;
  const std::int64_t end = begin + kOptimizerChunk < a.extent ? begin + kOptimizerChunk : a.extent;
  for (std::int64_t s = first_segment(a.segments, a.segment_count, begin); s < a.segment_count; ++s) {
    const OptimizerSegment segment = a.segments[s];
    if (segment.offset >= end) return;
    if (segment.frozen != 0) continue;
    const auto of_segment = rates(segment);
    const std::int64_t segment_end = segment.offset + segment.size;
    for_packs(segment.offset > begin ? segment.offset : begin, segment_end < end ? segment_end : end, update.aligned,
              [&](std::int64_t i, int n, bool whole) { update(of_segment, i, n, whole); });
  }
}

struct AdamWRates {
  float keep, rate;
};

// What all segments share, computed by one thread of a block: powers in double are dear.
struct AdamWShared {
  double inverse_correction1;
  float factor, root2;
};

struct AdamWUpdate {
  const AdamW& a;
  float factor, root2;
  float beta1, rest1, beta2, rest2, eps;
  bool aligned;

  __device__ void operator()(const AdamWRates& r, std::int64_t i, int n, bool whole) const {
    float g[W], m[W], v[W], w[W];
    load_pack(a.gradient + i, n, whole, g);
    load_pack(a.moment1 + i, n, whole, m);
    load_pack(a.moment2 + i, n, whole, v);
    load_pack(a.value + i, n, whole, w);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float scaled = g[k] * factor;
      m[k] = fmaf(m[k], beta1, scaled * rest1);
      v[k] = fmaf(v[k], beta2, scaled * scaled * rest2);
      w[k] = w[k] * r.keep - r.rate * m[k] / fmaf(sqrtf(v[k]), root2, eps);
    }
    store_pack(m, a.moment1 + i, n, whole);
    store_pack(v, a.moment2 + i, n, whole);
    store_pack(w, a.value + i, n, whole);
    if (a.shadow != nullptr) store_pack(w, a.shadow + i, n, whole);
  }
};

__global__ void __launch_bounds__(kThreads) adamw_kernel(AdamW a, bool aligned) {
  __shared__ AdamWShared shared;
  if (a.step->skip != 0) return;
  if (threadIdx.x == 0) {
    const double t = static_cast<double>(a.step->step) - static_cast<double>(a.step->left_out) + 1.0;
    shared.inverse_correction1 = 1.0 / (1.0 - pow(a.beta1, t));
    shared.root2 = static_cast<float>(1.0 / sqrt(1.0 - pow(a.beta2, t)));
    shared.factor = a.step->clip_factor / a.step->loss_scale;
  }
  __syncthreads();
  const double learning_rate = a.step->learning_rate;
  const auto rates = [&](const OptimizerSegment& s) {
    const double lr = learning_rate * static_cast<double>(s.lr_factor);
    return AdamWRates{static_cast<float>(1.0 - lr * a.weight_decay * static_cast<double>(s.decay)),
                      static_cast<float>(lr * shared.inverse_correction1)};
  };
  for_segments(a, rates,
               AdamWUpdate{a, shared.factor, shared.root2, static_cast<float>(a.beta1), static_cast<float>(1.0 - a.beta1),
                           static_cast<float>(a.beta2), static_cast<float>(1.0 - a.beta2), static_cast<float>(a.eps), aligned});
}

struct SgdRates {
  float rate, decay;
};

struct SgdUpdate {
  const SgdMomentum& a;
  float factor, momentum;
  bool aligned;

  __device__ void operator()(const SgdRates& r, std::int64_t i, int n, bool whole) const {
    float g[W], m[W], w[W];
    load_pack(a.gradient + i, n, whole, g);
    load_pack(a.moment + i, n, whole, m);
    load_pack(a.value + i, n, whole, w);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float gradient = fmaf(w[k], r.decay, g[k] * factor);
      m[k] = fmaf(m[k], momentum, gradient);
      w[k] -= r.rate * (a.nesterov ? fmaf(m[k], momentum, gradient) : m[k]);
    }
    store_pack(m, a.moment + i, n, whole);
    store_pack(w, a.value + i, n, whole);
    if (a.shadow != nullptr) store_pack(w, a.shadow + i, n, whole);
  }
};

__global__ void __launch_bounds__(kThreads) sgd_kernel(SgdMomentum a, bool aligned) {
  if (a.step->skip != 0) return;
  const float learning_rate = a.step->learning_rate, weight_decay = static_cast<float>(a.weight_decay);
  const auto rates = [&](const OptimizerSegment& s) { return SgdRates{learning_rate * s.lr_factor, weight_decay * s.decay}; };
  for_segments(a, rates, SgdUpdate{a, a.step->clip_factor / a.step->loss_scale, static_cast<float>(a.momentum), aligned});
}

}  // namespace

void launch(Cuda, Stream& stream, const AdamW& a) {
  const unsigned blocks = optimizer_blocks(a.extent);
  if (blocks == 0) return;
  const bool aligned =
      is_aligned(a.value) && is_aligned(a.gradient) && is_aligned(a.moment1) && is_aligned(a.moment2) && is_aligned(a.shadow);
  adamw_kernel<<<blocks, kThreads, 0, native(stream)>>>(a, aligned);
}

void launch(Cuda, Stream& stream, const SgdMomentum& a) {
  const unsigned blocks = optimizer_blocks(a.extent);
  if (blocks == 0) return;
  const bool aligned = is_aligned(a.value) && is_aligned(a.gradient) && is_aligned(a.moment) && is_aligned(a.shadow);
  sgd_kernel<<<blocks, kThreads, 0, native(stream)>>>(a, aligned);
}

}  // namespace twinlens
