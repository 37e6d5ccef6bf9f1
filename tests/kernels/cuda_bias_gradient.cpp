// The bias gradient on a card: its products against the CPU's, its sums, as the CPU's, against sums in double precision. (It belongs to
// linear layers, which need more than this kernel.)

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "twinlens/kernels/bias_gradient.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

constexpr Device kCard{DeviceType::cuda, 0};

struct Result {
  std::vector<float> dpre, dbias;
};

std::vector<float> numbers(std::int64_t count, double step) {
  std::vector<float> x;
  for (std::int64_t i = 0; i < count; ++i) x.push_back(static_cast<float>(3.0 * std::sin(static_cast<double>(i) * step)));
  return x;
}

// Rows of `cols` floats, `stride` apart, on a device; what lies between them is untouched.
struct Floats {
  Memory memory;
  Stream& stream;
  Floats(Device device, const std::vector<float>& values)
      : memory(allocate(current_stream(device), values.size() * sizeof(float))), stream(current_stream(device)) {
    copy_bytes(stream, memory.data(), device, values.data(), kCpu, memory.bytes());
  }
  float* data() const { return static_cast<float*>(memory.data()); }
  std::vector<float> back() const {
    std::vector<float> values(memory.bytes() / sizeof(float));
    copy_bytes(stream, values.data(), kCpu, memory.data(), stream.device(), memory.bytes());
    return values;
  }
};

Result gradient_on(Device device, Activation activation, std::int64_t rows, std::int64_t cols, std::int64_t stride, bool accumulate) {
  const Floats dy(device, numbers(rows * stride, 0.37)), pre(device, numbers(rows * stride, 0.11)), dbias(device, numbers(cols, 1.7));
  const Floats dpre(device, std::vector<float>(static_cast<std::size_t>(rows * stride), 77.0F));
  const std::int64_t blocks = (rows + BiasGradient::kRowsPerBlock - 1) / BiasGradient::kRowsPerBlock;
  const Floats scratch(device, std::vector<float>(static_cast<std::size_t>(blocks * cols), 77.0F));
  BiasGradient a;
  a.dy = {dy.data(), DType::f32, rows, cols, stride, nullptr};
  a.activation = activation;
  a.pre = {pre.data(), DType::f32, rows, cols, stride, nullptr};
  a.dpre = {dpre.data(), DType::f32, rows, cols, stride, nullptr};
  a.dbias = dbias.data();
  a.accumulate = accumulate;
  a.scratch = scratch.data();
  run(current_stream(device), a);
  return {dpre.back(), dbias.back()};
}

// |dbias - sums of dpre in f64|, relative to the 2-norm of all terms: what a sum in f32 can lose does not shrink where terms cancel. The
// chains of either device, emulated for all cases below, stay under 1.1e-7, or two roundings.
double summation_error(const Result& result, std::int64_t rows, std::int64_t cols, std::int64_t stride, bool accumulate) {
  const std::vector<float> before = numbers(cols, 1.7);
  double error2 = 0.0, terms2 = 0.0;
  for (std::int64_t c = 0; c < cols; ++c) {
    double sum = accumulate ? static_cast<double>(before[static_cast<std::size_t>(c)]) : 0.0;
    terms2 += sum * sum;
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto term = static_cast<double>(result.dpre[static_cast<std::size_t>(r * stride + c)]);
      sum += term;
      terms2 += term * term;
    }
    const double error = static_cast<double>(result.dbias[static_cast<std::size_t>(c)]) - sum;
    error2 += error * error;
  }
  return terms2 == 0.0 ? std::sqrt(error2) : std::sqrt(error2 / terms2);
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference2 = 0.0, all2 = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    difference2 += (x - y) * (x - y);
    all2 += x * x;
  }
  return all2 == 0.0 ? std::sqrt(difference2) : std::sqrt(difference2 / all2);
}

TEST_CASE("bias gradient on a card agrees with the CPU", "[cuda]") {
  if (cuda_device_count() == 0) return;  // device.cpp says why
  const std::int64_t violations = memory_guard_violations();
  set_memory_guards(true);
  for (const Activation activation :
       {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu}) {
    for (const std::int64_t rows : {0, 1, 33, 1000, 40'001}) {
      for (const std::int64_t cols : {1, 7, 128, 260}) {
        if (rows > 1000 && cols != 7) continue;
        const bool accumulate = cols % 2 == 0;
        for (const std::int64_t stride : {cols, cols + 4}) {
          INFO("activation " << static_cast<int>(activation) << ", " << rows << " x " << cols << ", stride " << stride);
          const Result want = gradient_on(kCpu, activation, rows, cols, stride, accumulate);
          const Result got = gradient_on(kCard, activation, rows, cols, stride, accumulate);
          CHECK(distance(want.dpre, got.dpre) < 1e-6);
          CHECK(summation_error(want, rows, cols, stride, accumulate) < 1.5e-7);
          CHECK(summation_error(got, rows, cols, stride, accumulate) < 1.5e-7);
          const Result again = gradient_on(kCard, activation, rows, cols, stride, accumulate);
          CHECK(again.dbias == got.dbias);
          CHECK(again.dpre == got.dpre);
        }
      }
    }
  }
  set_memory_guards(false);
  CHECK(memory_guard_violations() == violations);
}

}  // namespace
}  // namespace twinlens
