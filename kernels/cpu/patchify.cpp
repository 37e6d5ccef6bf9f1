#include "twinlens/kernels/patchify.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr std::int64_t kPixels = 64;  // rearranged at a time, between memory and a buffer in L1

// One run of pixels to three planes of y, `plane` elements apart.
template <class I, class X, class Y>
TWINLENS_INLINE void forward_run(const PatchifyForward& a, const X* x, Y* y, std::int64_t pixels, std::int64_t plane) {
  using V = Vec<I>;
  float buffer[3][kPixels];
  for (std::int64_t begin = 0; begin < pixels; begin += kPixels) {
    const std::int64_t n = pixels - begin < kPixels ? pixels - begin : kPixels;
    for (std::int64_t k = 0; k < n; ++k) {
      for (int c = 0; c < 3; ++c) buffer[c][k] = static_cast<float>(x[3 * (begin + k) + c]);
    }
    for (int c = 0; c < 3; ++c) {
      Y* to = y + c * plane + begin;
      for_lanes<I>(n, [&](std::int64_t i, std::int64_t lanes) {
        const V v = V::fma(load_lanes<I>(buffer[c] + i, lanes), V(a.scale[c]), V(a.shift[c]));
        store_lanes<I>(v, to + i, lanes);
      });
    }
  }
}

template <class I, class D>
TWINLENS_INLINE void backward_run(const D* dy, float* dx, std::int64_t pixels, std::int64_t plane) {
  float buffer[3][kPixels];
  for (std::int64_t begin = 0; begin < pixels; begin += kPixels) {
    const std::int64_t n = pixels - begin < kPixels ? pixels - begin : kPixels;
    for (int c = 0; c < 3; ++c) {
      const D* from = dy + c * plane + begin;
      for_lanes<I>(n, [&](std::int64_t i, std::int64_t lanes) { store_lanes<I>(load_lanes<I>(from + i, lanes), buffer[c] + i, lanes); });
    }
    for (std::int64_t k = 0; k < n; ++k) {
      for (int c = 0; c < 3; ++c) dx[3 * (begin + k) + c] = buffer[c][k];
    }
  }
}

// Calls f(pixel offset, row of y, offset in the row) for every run of `patch` pixels, in parallel over rows of patches.
template <class F>
TWINLENS_INLINE void for_runs(std::int64_t patch_rows, std::int64_t width, std::int64_t patch, F&& f) {
  const std::int64_t across = width / patch;
  parallel_for(patch_rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t r = 0; r < patch; ++r) {
        for (std::int64_t j = 0; j < across; ++j) f(((i * patch + r) * across + j) * patch, i * across + j, r * patch);
      }
    }
  });
}

// Patches of one pixel in dense rows: the order stays, so whole registers pass by, three to a period of the channels.
template <class I, class X, class Y>
TWINLENS_INLINE void forward_pixels(const PatchifyForward& a) {
  using V = Vec<I>;
  constexpr std::int64_t w = V::kWidth, kPeriod = 3 * w;
  float scale[kPeriod], shift[kPeriod];
  for (std::int64_t i = 0; i < kPeriod; ++i) {
    scale[i] = a.scale[i % 3];
    shift[i] = a.shift[i % 3];
  }
  const X* x = a.x.template as<X>();
  Y* y = a.y.template row<Y>(0);
  parallel_for(3 * a.y.rows, kPeriod * 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; at += kPeriod) {
      const std::int64_t n = end - at < kPeriod ? end - at : kPeriod;
      float buffer[kPeriod] = {};
      if (n == kPeriod) {
        for (std::int64_t i = 0; i < kPeriod; ++i) buffer[i] = static_cast<float>(x[at + i]);
      } else {
        for (std::int64_t i = 0; i < n; ++i) buffer[i] = static_cast<float>(x[at + i]);
      }
      for_lanes<I>(n, [&](std::int64_t i, std::int64_t lanes) {
        store_lanes<I>(V::fma(V::load(buffer + i), V::load(scale + i), V::load(shift + i)), y + at + i, lanes);
      });
    }
  });
}

template <class I, class X>
TWINLENS_INLINE void forward(const PatchifyForward& a) {
  if (a.width == 0) return;
  visit_float(a.y.dtype, [&]<class Y>(TypeTag<Y>) {
    if (a.patch == 1 && a.y.stride == 3) return forward_pixels<I, X, Y>(a);
    for_runs(a.y.rows / (a.width / a.patch), a.width, a.patch, [&](std::int64_t pixel, std::int64_t row, std::int64_t offset) {
      forward_run<I>(a, a.x.template as<X>() + 3 * pixel, a.y.row<Y>(row) + offset, a.patch, a.patch * a.patch);
    });
  });
}

}  // namespace

template <class I>
void kernel(I, const PatchifyForward& a) {
  if (a.x.dtype == DType::u8) {
    forward<I, std::uint8_t>(a);
  } else {
    forward<I, float>(a);
  }
}
template void kernel(TWINLENS_ISA, const PatchifyForward&);

template <class I>
void kernel(I, const PatchifyBackward& a) {
  if (a.width == 0) return;
  visit_float(a.dy.dtype, [&]<class D>(TypeTag<D>) {
    for_runs(a.dy.rows / (a.width / a.patch), a.width, a.patch, [&](std::int64_t pixel, std::int64_t row, std::int64_t offset) {
      backward_run<I>(a.dy.row<D>(row) + offset, a.dx + 3 * pixel, a.patch, a.patch * a.patch);
    });
  });
}
template void kernel(TWINLENS_ISA, const PatchifyBackward&);

}  // namespace twinlens
