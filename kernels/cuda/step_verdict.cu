#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/step_verdict.h"

namespace twinlens {
namespace {

using namespace cuda;

__global__ void verdict_kernel(StepVerdict a) { a.decide(); }

}  // namespace

void launch(Cuda, Stream& stream, const StepVerdict& a) { verdict_kernel<<<1, 1, 0, native(stream)>>>(a); }

}  // namespace twinlens
