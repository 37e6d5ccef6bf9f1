#include "kernels/cuda/device/broadcast.cuh"
#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/where.h"

namespace twinlens {
namespace {

using namespace cuda;

template <class Word>
__global__ void __launch_bounds__(256) where_kernel(const std::uint8_t* mask, const Word* a, const Word* b, Word* y, StridedPlan<3> plan) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= plan.count) return;
  std::int64_t at[3];
  strided_offsets(plan, i, at);
  y[i] = mask[at[0]] != 0 ? a[at[1]] : b[at[2]];
}

template <class Word>
void choose(Stream& stream, const Choose& c) {
  const StridedPlan<3> plan = plan_strided<3>({&c.mask, &c.a, &c.b});
  const ElementLaunch geometry = element_launch(plan.count, 1);
  if (geometry.blocks == 0) return;
  where_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(static_cast<const std::uint8_t*>(c.mask.data),
                                                                                static_cast<const Word*>(c.a.data),
                                                                                static_cast<const Word*>(c.b.data), c.y.as<Word>(), plan);
}

}  // namespace

void launch(Cuda, Stream& stream, const Choose& c) {
  switch (size_of(c.y.dtype)) {
    case 1: return choose<std::uint8_t>(stream, c);
    case 2: return choose<std::uint16_t>(stream, c);
    case 4: return choose<std::uint32_t>(stream, c);
    default: return choose<std::uint64_t>(stream, c);
  }
}

}  // namespace twinlens
