#include "twinlens/kernels/im2col.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

template <class I, class T>
void gather_windows(const Im2Col& a) {
  const ConvGeometry& g = a.g;
  const std::int64_t c = g.channels, window = g.kernel_height * g.kernel_width * c;
  const auto bytes = static_cast<std::size_t>(c) * sizeof(T);
  parallel_for(g.batch * g.out_height, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t b = line / g.out_height, oh = line % g.out_height;
      for (std::int64_t ow = 0; ow < g.out_width; ++ow) {
        T* to = a.y.as<T>() + (line * g.out_width + ow) * window;
        for (std::int64_t kh = 0; kh < g.kernel_height; ++kh) {
          const std::int64_t h = oh * g.stride - g.padding + kh * g.dilation;
          for (std::int64_t kw = 0; kw < g.kernel_width; ++kw, to += c) {
            const std::int64_t w = ow * g.stride - g.padding + kw * g.dilation;
            if (h < 0 || h >= g.height || w < 0 || w >= g.width) {
              std::memset(static_cast<void*>(to), 0, bytes);
            } else {
              std::memcpy(static_cast<void*>(to), a.x.as<T>() + ((b * g.height + h) * g.width + w) * c, bytes);
            }
          }
        }
      }
    }
  });
}

template <class I, class T>
void scatter_windows(const Col2Im& a) {
  const ConvGeometry& g = a.g;
  const std::int64_t c = g.channels, window = g.kernel_height * g.kernel_width * c;
  parallel_for(g.batch * g.height, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line) {
      const std::int64_t b = line / g.height, h = line % g.height;
      for (std::int64_t w = 0; w < g.width; ++w) {
        T* to = a.dx.as<T>() + (line * g.width + w) * c;
        for_lanes<I>(c, [&](std::int64_t i, std::int64_t n) {
          Vec<I> sum(0.0F);
          for (std::int64_t kh = 0; kh < g.kernel_height; ++kh) {
            const std::int64_t top = h + g.padding - kh * g.dilation;
            if (top < 0 || top % g.stride != 0 || top / g.stride >= g.out_height) continue;
            for (std::int64_t kw = 0; kw < g.kernel_width; ++kw) {
              const std::int64_t left = w + g.padding - kw * g.dilation;
              if (left < 0 || left % g.stride != 0 || left / g.stride >= g.out_width) continue;
              const std::int64_t row = (b * g.out_height + top / g.stride) * g.out_width + left / g.stride;
              sum += load_lanes<I>(a.dy.as<T>() + row * window + (kh * g.kernel_width + kw) * c + i, n);
            }
          }
          store_lanes<I>(sum, to + i, n);
        });
      }
    }
  });
}

}  // namespace

template <class I>
void kernel(I, const Im2Col& a) {
  visit_float(a.x.dtype, [&]<class T>(TypeTag<T>) { gather_windows<I, T>(a); });
}
template void kernel(TWINLENS_ISA, const Im2Col&);

template <class I>
void kernel(I, const Col2Im& a) {
  visit_float(a.dy.dtype, [&]<class T>(TypeTag<T>) { scatter_windows<I, T>(a); });
}
template void kernel(TWINLENS_ISA, const Col2Im&);

}  // namespace twinlens
