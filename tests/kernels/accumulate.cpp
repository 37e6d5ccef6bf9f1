// y += factor x, what gradients are summed with.
#include "twinlens/kernels/accumulate.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/kernels/bf16.h"
#include "tests/kernels/every_set.h"

#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// Numbers of 8 bits, so that both types hold them.
float number(std::size_t i) { return static_cast<float>(static_cast<int>(i * 37 % 251) - 125) / 64.0F; }

template <class T>
T stored(float x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    return T{static_cast<std::uint16_t>(bits >> 16)};
  }
}
float read(float x) { return x; }
float read(bf16 x) { return widened(x); }

template <class X, class Y>
std::vector<float> sum_of(std::size_t n, DType x_type, DType y_type) {
  std::vector<X> x(n);
  std::vector<Y> y(n + 3);
  for (std::size_t i = 0; i < n; ++i) x[i] = stored<X>(number(i));
  for (std::size_t i = 0; i < n + 3; ++i) y[i] = stored<Y>(number(3 * i + 1));
  Accumulate a{};
  a.x = {x.data(), x_type, static_cast<std::int64_t>(n)};
  a.y = {y.data(), y_type, static_cast<std::int64_t>(n)};
  a.factor = 0.75F;
  run(current_stream(kCpu), a);
  std::vector<float> out;
  for (const Y v : y) out.push_back(read(v));
  return out;
}

template <class X, class Y>
void check_pair(DType x_type, DType y_type) {
  INFO(name_of(x_type) << " to " << name_of(y_type));
  for (const std::size_t n : {0U, 1U, 17U, 40'003U}) {
    INFO(n << " elements");
    const std::vector<float> got = sum_of<X, Y>(n, x_type, y_type);
    float worst = 0.0F;
    for (std::size_t i = 0; i < n; ++i) worst = std::max(worst, std::abs(got[i] - (number(3 * i + 1) + 0.75F * number(i))));
    // All terms have few bits: f32 is exact, and bf16 rounds sums below 4 to a multiple of 1/64.
    CHECK(worst <= (sizeof(Y) == 4 ? 0.0F : 1.0F / 128));
    for (std::size_t i = n; i < n + 3; ++i) CHECK(got[i] == number(3 * i + 1));  // what lies behind is left alone
    const int threads = thread_count();
    set_thread_count(threads == 1 ? 2 : 1);
    CHECK(sum_of<X, Y>(n, x_type, y_type) == got);
    set_thread_count(threads);
  }
}

}  // namespace

TEST_CASE("accumulate adds on every instruction set", "[accumulate]") {
  on_every_set([] {
    check_pair<float, float>(DType::f32, DType::f32);
    check_pair<bf16, float>(DType::bf16, DType::f32);
    check_pair<float, bf16>(DType::f32, DType::bf16);
    check_pair<bf16, bf16>(DType::bf16, DType::bf16);
  });
}

}  // namespace twinlens
