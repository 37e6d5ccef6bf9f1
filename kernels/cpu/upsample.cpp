#include "twinlens/kernels/upsample.h"

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"

namespace twinlens {

template <class I>
void kernel(I, const UpsampleForward& a) {
  // Elements are only moved, so bytes will do for any type.
  const auto pixel = static_cast<std::size_t>(a.channels * size_of(a.x.dtype));
  const std::size_t row = static_cast<std::size_t>(a.width) * pixel;
  const auto factor = static_cast<std::size_t>(a.factor);
  parallel_for(a.rows, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const char* x = a.x.as<char>() + static_cast<std::size_t>(r) * row;
      char* y = static_cast<char*>(a.y) + static_cast<std::size_t>(r) * row * factor * factor;
      for (std::size_t j = 0; j < static_cast<std::size_t>(a.width) * factor; ++j)
        std::memcpy(y + j * pixel, x + j / factor * pixel, pixel);
      for (std::size_t i = 1; i < factor; ++i) std::memcpy(y + i * row * factor, y, row * factor);
    }
  });
}
template void kernel(TWINLENS_ISA, const UpsampleForward&);

template <class I>
void kernel(I, const UpsampleBackward& a) {
  const std::int64_t c = a.channels, wide = a.width * a.factor;
  visit_float(a.dy.dtype, [&]<class T>(TypeTag<T>) {
    parallel_for(a.rows, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin * a.width; p < end * a.width; ++p) {
        const T* dy = a.dy.as<T>() + (p / a.width * a.factor * wide + p % a.width * a.factor) * c;
        for_lanes<I>(c, [&](std::int64_t k, std::int64_t n) {
          Vec<I> sum(0.0F);
          for (std::int64_t i = 0; i < a.factor; ++i) {
            for (std::int64_t j = 0; j < a.factor; ++j) sum += load_lanes<I>(dy + (i * wide + j) * c + k, n);
          }
          store_lanes<I>(sum, static_cast<T*>(a.dx) + p * c + k, n);
        });
      }
    });
  });
}
template void kernel(TWINLENS_ISA, const UpsampleBackward&);

}  // namespace twinlens
