#include "bench/measure/peak.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "bench/measure/peak_loop.h"

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens::bench {
namespace {

template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

constexpr int kRounds = 8;

}  // namespace

double cpu_peak_gflops(bool bf16) {
  const auto threads = static_cast<std::size_t>(thread_count());
  std::vector<float> sums(threads);
  std::vector<double> rates(threads);
  const PeakLoop loop{thread_count(), 300'000, bf16, sums.data(), rates.data()};
  double best = 0.0;
  for (int i = 0; i < kRounds; ++i) {
    run(current_stream(kCpu), loop);
    best = std::max(best, 1e-9 * std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return best;
}

double cpu_copy_gigabytes(double bytes) {
  const auto count = static_cast<std::int64_t>(std::clamp(bytes, 0x1p16, 320.0 * 0x1p20) / 8.0);
  const NoGrad guard;
  const Tensor x = full({count}, 1.0), y = full({count}, 2.0);  // on the pages that tensors have
  double best = 0.0;
  for (int i = 0; i < 2 * kRounds; ++i) {
    const CopyLoop loop{x.data<float>(), static_cast<float*>(y.raw()), count, i % 2 == 1};
    const double seconds = seconds_of([&] { run(current_stream(kCpu), loop); });
    best = std::max(best, 8.0 * static_cast<double>(count) / seconds * 1e-9);
  }
  return best;
}

double cuda_product_gflops(Device device, Compute compute) {
  constexpr std::int64_t kSide = 8192;
  const NoGrad guard;
  double best = 0.0;
  try {
    const DType dtype = compute == Compute::bf16 ? DType::bf16 : DType::f32;
    const Tensor x = full({kSide, kSide}, 0.5, dtype, device);
    MatmulOptions options;
    options.compute = compute;
    for (int i = 0; i < kRounds; ++i) {
      synchronize(current_stream(device));
      const double seconds = seconds_of([&] {
        const Tensor y = matmul(x, x, options);
        synchronize(current_stream(device));
      });
      best = std::max(best, 2.0 * kSide * kSide * kSide / seconds * 1e-9);
    }
  } catch (const Error&) {
    return 0.0;
  }
  return best;
}

}  // namespace twinlens::bench
