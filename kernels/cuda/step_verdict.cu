#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/step_verdict.h"

namespace twinlens {
namespace {

using namespace cuda;

__global__ void verdict_kernel(StepVerdict a) {
  const float loss = *a.loss, norm = *a.gradient_norm / a.step->loss_scale;
  const bool skip = !isfinite(loss) || !isfinite(norm) || a.record->skip != 0;
  const double factor = a.max_norm / (static_cast<double>(norm) + 1e-6);
  const float clip = !skip && a.max_norm > 0.0 && factor < 1.0 ? static_cast<float>(factor) : 1.0F;
  a.step->clip_factor = clip;
  a.step->skip = skip ? 1 : 0;
  *a.record = StepRecord{loss, norm, clip, skip ? 1 : 0};
}

}  // namespace

void launch(Cuda, Stream& stream, const StepVerdict& a) { verdict_kernel<<<1, 1, 0, native(stream)>>>(a); }

}  // namespace twinlens
