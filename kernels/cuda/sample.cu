#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

#include "twinlens/kernels/philox.h"
#include "twinlens/kernels/sample.h"

namespace twinlens {
namespace {

using namespace cuda;

// e^x for x <= 0, the polynomial of kernels/cpu/vec/math.h: both devices draw from the same weights. 0 below -87.3; NaN stays NaN.
__device__ float exp_nonpositive(float x) {
  const float limited = x < -87.33654F ? -87.33654F : x;
  const float shifted = fmaf(limited, 1.44269504088896341F, 12582912.0F);
  const float n = shifted - 12582912.0F;
  float r = fmaf(n, -0.693359375F, limited);
  r = fmaf(n, 2.12194440e-4F, r);
  float p = 1.9875691500e-4F;
  p = fmaf(p, r, 1.3981999507e-3F);
  p = fmaf(p, r, 8.3334519073e-3F);
  p = fmaf(p, r, 4.1665795894e-2F);
  p = fmaf(p, r, 1.6666665459e-1F);
  p = fmaf(p, r, 5.0000001201e-1F);
  p = fmaf(p, r * r, r + 1.0F);
  const float power = __uint_as_float((__float_as_uint(shifted) + 127U) << 23);
  return x < -87.33654F ? 0.0F : p * power;
}

// The sum over this lane and those before it.
__device__ double sum_up_to(double x) {
  const unsigned lane = threadIdx.x;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const double before = __shfl_up_sync(0xFFFFFFFFU, x, offset);
    if (lane >= static_cast<unsigned>(offset)) x += before;
  }
  return x;
}

// A warp for a row: 32 columns at a time, sums in double.
template <class T>
__global__ void __launch_bounds__(128) sample_kernel(SampleRows a) {
  const std::int64_t r = group_row(), c = a.x.cols;
  if (r >= valid_rows(a.x)) return;
  const T* x = row_of<T>(a.x, r);
  const int lane = static_cast<int>(threadIdx.x);

  float largest = 0.0F;
  if (a.logits) {
    float m = -__builtin_inff();
    for (std::int64_t i = lane; i < c; i += kWarp) m = fmaxf(m, to_float(x[i]));
    largest = group_max<kWarp>(m);
  }
  const auto weight = [&](std::int64_t i) {
    if (i >= c) return 0.0F;
    const float v = to_float(x[i]);
    return a.logits ? exp_nonpositive(v - largest) : v;
  };

  double total = 0.0;
  long long last = -1;  // with a weight above 0
  bool valid = true;
  for (std::int64_t begin = 0; begin < c; begin += kWarp) {
    const float w = weight(begin + lane);
    const unsigned above = __ballot_sync(0xFFFFFFFFU, w > 0.0F);
    valid = valid && __all_sync(0xFFFFFFFFU, w >= 0.0F) != 0;
    if (above != 0) last = begin + 31 - __clz(static_cast<int>(above));
    total += __shfl_sync(0xFFFFFFFFU, sum_up_to(static_cast<double>(w)), kWarp - 1);
  }
  long long found = -1;
  if (valid && last >= 0 && total - total == 0.0) {  // the same in all lanes
    const std::uint64_t key = mix(mix(a.step->seed, a.step->step), a.site);
    const auto sample = static_cast<std::uint64_t>(a.sample != nullptr ? a.sample[r] : r);
    const auto position = static_cast<std::uint64_t>(a.position != nullptr ? a.position[r] : 0);
    const Philox4 bits = philox(key, sample, position);
    const std::uint64_t word = std::uint64_t{bits.v[0]} << 32 | bits.v[1];
    const double target = static_cast<double>(word >> 11) * 0x1p-53 * total;
    found = last;  // where target is rounded up to the whole
    double before = 0.0;
    for (std::int64_t begin = 0; begin < c; begin += kWarp) {
      const float w = weight(begin + lane);
      const double sum = before + sum_up_to(static_cast<double>(w));
      const unsigned passed = __ballot_sync(0xFFFFFFFFU, sum > target && w > 0.0F);  // rounding must not draw a weight of 0
      if (passed != 0) {
        found = begin + __ffs(static_cast<int>(passed)) - 1;
        break;
      }
      before = __shfl_sync(0xFFFFFFFFU, sum, kWarp - 1);
    }
  }
  if (lane == 0) a.index[r] = found;
}

}  // namespace

void launch(Cuda, Stream& stream, const SampleRows& a) {
  if (a.x.rows == 0) return;
  constexpr unsigned kRowsOfBlock = 4;
  const auto blocks = static_cast<unsigned>(ceil_div(a.x.rows, kRowsOfBlock));
  visit_cuda_float(a.x.dtype, [&]<class T>(TypeTag<T>) { sample_kernel<T><<<blocks, dim3(kWarp, kRowsOfBlock), 0, native(stream)>>>(a); });
}

}  // namespace twinlens
