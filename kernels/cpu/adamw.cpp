#include "twinlens/kernels/adamw.h"

#include <cmath>

#include "kernels/cpu/vec/prefetch.h"
#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

template <class Args>
TWINLENS_INLINE float gradient_factor(const Args& a) {
  return a.step->clip_factor / a.step->loss_scale;
}

template <class I>
TWINLENS_INLINE void store_value(Vec<I> w, float* value, bf16* shadow, std::int64_t n) {
  store_lanes<I>(w, value, n);
  if (shadow != nullptr) store_lanes<I>(w, shadow, n);
}

}  // namespace

template <class I>
void kernel(I, const AdamW& a) {
  using V = Vec<I>;
  if (a.step->skip != 0) return;
  const double t = static_cast<double>(a.step->step) - static_cast<double>(a.step->left_out) + 1.0;
  const double correction1 = 1.0 - std::pow(a.beta1, t);
  const double correction2 = 1.0 - std::pow(a.beta2, t);
  const V beta1(static_cast<float>(a.beta1)), rest1(static_cast<float>(1.0 - a.beta1));
  const V beta2(static_cast<float>(a.beta2)), rest2(static_cast<float>(1.0 - a.beta2));
  const V eps(static_cast<float>(a.eps));
  const V factor(gradient_factor(a));
  const V root2(static_cast<float>(1.0 / std::sqrt(correction2)));
  for (std::int64_t s = 0; s < a.segment_count; ++s) {
    const OptimizerSegment& segment = a.segments[s];
    if (segment.frozen != 0) continue;
    const double lr = static_cast<double>(a.step->learning_rate) * static_cast<double>(segment.lr_factor);
    const V keep(static_cast<float>(1.0 - lr * a.weight_decay * static_cast<double>(segment.decay)));
    const V rate(static_cast<float>(lr / correction1));
    parallel_for(segment.size, element_grain(segment.size), [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t base = segment.offset + begin;
      for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
        const std::int64_t at = base + i;
        ask_ahead<I>(a.gradient + at, a.moment1 + at, a.moment2 + at, a.value + at);
        const V g = load_lanes<I>(a.gradient + at, n) * factor;
        const V m = V::fma(load_lanes<I>(a.moment1 + at, n), beta1, g * rest1);
        const V v = V::fma(load_lanes<I>(a.moment2 + at, n), beta2, g * g * rest2);
        const V w = load_lanes<I>(a.value + at, n) * keep - rate * m / V::fma(V::sqrt(v), root2, eps);
        store_lanes<I>(m, a.moment1 + at, n);
        store_lanes<I>(v, a.moment2 + at, n);
        store_value<I>(w, a.value + at, a.shadow == nullptr ? nullptr : a.shadow + at, n);
      });
    });
  }
}
template void kernel(TWINLENS_ISA, const AdamW&);

template <class I>
void kernel(I, const SgdMomentum& a) {
  using V = Vec<I>;
  if (a.step->skip != 0) return;
  const V factor(gradient_factor(a)), momentum(static_cast<float>(a.momentum));
  for (std::int64_t s = 0; s < a.segment_count; ++s) {
    const OptimizerSegment& segment = a.segments[s];
    if (segment.frozen != 0) continue;
    const V rate(a.step->learning_rate * segment.lr_factor), decay(static_cast<float>(a.weight_decay) * segment.decay);
    parallel_for(segment.size, element_grain(segment.size), [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t base = segment.offset + begin;
      for_lanes<I>(end - begin, [&](std::int64_t i, std::int64_t n) {
        const std::int64_t at = base + i;
        ask_ahead<I>(a.gradient + at, a.moment + at, a.value + at);
        const V w = load_lanes<I>(a.value + at, n);
        const V g = V::fma(w, decay, load_lanes<I>(a.gradient + at, n) * factor);
        const V m = V::fma(load_lanes<I>(a.moment + at, n), momentum, g);
        store_lanes<I>(m, a.moment + at, n);
        const V direction = a.nesterov ? V::fma(m, momentum, g) : m;
        store_value<I>(w - rate * direction, a.value + at, a.shadow == nullptr ? nullptr : a.shadow + at, n);
      });
    });
  }
}
template void kernel(TWINLENS_ISA, const SgdMomentum&);

}  // namespace twinlens
