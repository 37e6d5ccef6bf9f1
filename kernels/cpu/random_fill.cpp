#include "twinlens/kernels/random_fill.h"

#include <cmath>

#include "kernels/cpu/vec/vec.h"

#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/philox.h"

namespace twinlens {

template <class I>
void kernel(I, const RandomFill& a) {
  constexpr double kTwoPi = 6.283185307179586477;
  float* y = a.y.as<float>();
  // The largest float below a + b, where a number close to it would be rounded up to it.
  auto last = static_cast<float>(a.a + a.b);
  if (static_cast<double>(last) >= a.a + a.b) last = std::nextafterf(last, static_cast<float>(a.a));
  // Four numbers come from one block of Philox; chunks are cut at multiples of four.
  parallel_for((a.y.count + 3) / 4, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const Philox4 bits = philox(a.key, 0, static_cast<std::uint64_t>(block));
      double values[4];
      for (int i = 0; i < 4; ++i) values[i] = (static_cast<double>(bits.v[i]) + 0.5) * 0x1p-32;  // (0, 1)
      if (a.normal) {
        for (int i = 0; i < 4; i += 2) {
          const double radius = std::sqrt(-2.0 * std::log(values[i])), angle = kTwoPi * values[i + 1];
          values[i] = radius * std::cos(angle);
          values[i + 1] = radius * std::sin(angle);
        }
      }
      for (std::int64_t i = 0; i < 4 && 4 * block + i < a.y.count; ++i) {
        const auto value = static_cast<float>(a.a + a.b * values[i]);
        y[4 * block + i] = !a.normal && value > last ? last : value;
      }
    }
  });
}
template void kernel(TWINLENS_ISA, const RandomFill&);

}  // namespace twinlens
