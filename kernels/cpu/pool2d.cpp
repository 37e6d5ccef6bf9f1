#include "twinlens/kernels/pool2d.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Half-open range of positions along one axis.
struct Range {
  std::int64_t begin, end;
};

// Window positions of output o that lie inside an axis of `size`.
TWINLENS_INLINE Range positions_inside(std::int64_t o, std::int64_t size, const PoolWindows& w) {
  const std::int64_t start = o * w.stride - w.padding;
  return {start < 0 ? -start : 0, start + w.kernel > size ? size - start : w.kernel};
}

// Outputs whose windows see input position p.
TWINLENS_INLINE Range windows_over(std::int64_t p, std::int64_t outputs, const PoolWindows& w) {
  const std::int64_t last = (p + w.padding) / w.stride + 1;
  const std::int64_t before = p + w.padding - w.kernel;  // the last position at which a window ends too early
  return {before < 0 ? 0 : before / w.stride + 1, last < outputs ? last : outputs};
}

// Calls f(image, row) for every row of `batch` images, in parallel.
template <class F>
TWINLENS_INLINE void for_rows(std::int64_t batch, std::int64_t rows, F&& f) {
  parallel_for(batch * rows, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) f(r / rows, r % rows);
  });
}
// Calls f(image, row, column) for every pixel.
template <class F>
TWINLENS_INLINE void for_pixels(std::int64_t batch, std::int64_t rows, std::int64_t columns, F&& f) {
  for_rows(batch, rows, [&](std::int64_t b, std::int64_t y) {
    for (std::int64_t x = 0; x < columns; ++x) f(b, y, x);
  });
}

TWINLENS_INLINE std::int64_t input_at(const PoolWindows& w, std::int64_t b, std::int64_t y, std::int64_t x) {
  return ((b * w.height + y) * w.width + x) * w.channels;
}
TWINLENS_INLINE std::int64_t output_at(const PoolWindows& w, std::int64_t b, std::int64_t y, std::int64_t x) {
  return ((b * w.out_height + y) * w.out_width + x) * w.channels;
}

template <class I>
TWINLENS_INLINE typename Vec<I>::Int load_int(const std::int32_t* p, std::int64_t n) {
  typename Vec<I>::Int v{};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(std::int32_t));
  return v;
}
template <class I>
TWINLENS_INLINE typename Vec<I>::Int all_equal_to(std::int64_t value) {
  return typename Vec<I>::Int{} + static_cast<std::int32_t>(value);
}

template <class I, class T>
TWINLENS_INLINE void max_of_window(const MaxPool2dForward& a, std::int64_t b, std::int64_t oy, std::int64_t ox) {
  using V = Vec<I>;
  using Int = typename V::Int;
  const PoolWindows& w = a.windows;
  const Range rows = positions_inside(oy, w.height, w), columns = positions_inside(ox, w.width, w);
  const T* x = a.x.as<T>();
  const std::int64_t out = output_at(w, b, oy, ox);
  for_lanes<I>(w.channels, [&](std::int64_t c, std::int64_t n) {
    V best(-__builtin_inff());
    Int where = all_equal_to<I>(rows.begin * w.kernel + columns.begin);  // stays when the whole window is -inf
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      for (std::int64_t j = columns.begin; j < columns.end; ++j) {
        const V v = load_lanes<I>(x + input_at(w, b, oy * w.stride - w.padding + i, ox * w.stride - w.padding + j) + c, n);
        const Int larger = (v.raw > best.raw) | ((v.raw != v.raw) & (best.raw == best.raw));
        best = V::select(larger, v, best);
        where = (larger & all_equal_to<I>(i * w.kernel + j)) | (~larger & where);
      }
    }
    store_lanes<I>(best, static_cast<T*>(a.y) + out + c, n);
    std::memcpy(a.where + out + c, &where, static_cast<std::size_t>(n) * sizeof(std::int32_t));
  });
}

}  // namespace

template <class I>
void kernel(I, const AvgPool2dForward& a) {
  using V = Vec<I>;
  const PoolWindows& w = a.windows;
  const V scale(1.0F / static_cast<float>(w.kernel * w.kernel));
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    for_pixels(w.batch, w.out_height, w.out_width, [&](std::int64_t b, std::int64_t oy, std::int64_t ox) {
      const T* x = a.x.as<T>() + input_at(w, b, oy * w.stride, ox * w.stride);
      T* y = static_cast<T*>(a.y) + output_at(w, b, oy, ox);
      for_lanes<I>(w.channels, [&](std::int64_t c, std::int64_t n) {
        V sum(0.0F);
        for (std::int64_t i = 0; i < w.kernel; ++i) {
          for (std::int64_t j = 0; j < w.kernel; ++j) sum += load_lanes<I>(x + (i * w.width + j) * w.channels + c, n);
        }
        store_lanes<I>(sum * scale, y + c, n);
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const AvgPool2dForward&);

template <class I>
void kernel(I, const AvgPool2dBackward& a) {
  using V = Vec<I>;
  const PoolWindows& w = a.windows;
  const V scale(1.0F / static_cast<float>(w.kernel * w.kernel));
  const bool apart = w.kernel == w.stride && w.padding == 0;  // at most one window over a pixel
  visit_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
    const T* dy = a.dy.as<T>();
    for_rows(w.batch, w.height, [&](std::int64_t b, std::int64_t y) {
      const Range rows = windows_over(y, w.out_height, w);
      T* dx = static_cast<T*>(a.dx) + input_at(w, b, y, 0);
      if (apart && rows.begin < rows.end) {
        for (std::int64_t ox = 0; ox < w.out_width; ++ox, dx += w.kernel * w.channels) {
          const T* from = dy + output_at(w, b, rows.begin, ox);
          for_lanes<I>(w.channels, [&](std::int64_t c, std::int64_t n) {
            const V share = load_lanes<I>(from + c, n) * scale;
            for (std::int64_t j = 0; j < w.kernel; ++j) store_lanes<I>(share, dx + j * w.channels + c, n);
          });
        }
        std::memset(static_cast<void*>(dx), 0, static_cast<std::size_t>((w.width - w.out_width * w.kernel) * w.channels) * sizeof(T));
        return;
      }
      for (std::int64_t x = 0; x < w.width; ++x, dx += w.channels) {
        const Range columns = windows_over(x, w.out_width, w);
        for_lanes<I>(w.channels, [&](std::int64_t c, std::int64_t n) {
          V sum(0.0F);
          for (std::int64_t oy = rows.begin; oy < rows.end; ++oy) {
            for (std::int64_t ox = columns.begin; ox < columns.end; ++ox) sum += load_lanes<I>(dy + output_at(w, b, oy, ox) + c, n);
          }
          store_lanes<I>(sum * scale, dx + c, n);
        });
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const AvgPool2dBackward&);

template <class I>
void kernel(I, const MaxPool2dForward& a) {
  const PoolWindows& w = a.windows;
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) {
    for_pixels(w.batch, w.out_height, w.out_width,
               [&](std::int64_t b, std::int64_t oy, std::int64_t ox) { max_of_window<I, T>(a, b, oy, ox); });
  });
}
template void kernel(TWINLENS_ISA, const MaxPool2dForward&);

template <class I>
void kernel(I, const MaxPool2dBackward& a) {
  using V = Vec<I>;
  const PoolWindows& w = a.windows;
  visit_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
    for_pixels(w.batch, w.height, w.width, [&](std::int64_t b, std::int64_t y, std::int64_t x) {
      const Range rows = windows_over(y, w.out_height, w), columns = windows_over(x, w.out_width, w);
      T* dx = static_cast<T*>(a.dx) + input_at(w, b, y, x);
      for_lanes<I>(w.channels, [&](std::int64_t c, std::int64_t n) {
        V sum(0.0F);
        for (std::int64_t oy = rows.begin; oy < rows.end; ++oy) {
          for (std::int64_t ox = columns.begin; ox < columns.end; ++ox) {
            const std::int64_t out = output_at(w, b, oy, ox) + c;
            const std::int64_t here = (y + w.padding - oy * w.stride) * w.kernel + x + w.padding - ox * w.stride;
            const auto is_largest = load_int<I>(a.where + out, n) == all_equal_to<I>(here);
            sum += V::select(is_largest, load_lanes<I>(a.dy.as<T>() + out, n), V(0.0F));
          }
        }
        store_lanes<I>(sum, dx + c, n);
      });
    });
  });
}
template void kernel(TWINLENS_ISA, const MaxPool2dBackward&);

}  // namespace twinlens
