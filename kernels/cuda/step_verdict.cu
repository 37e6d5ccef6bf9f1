#include "kernels/cuda/device/launch.cuh"

#include "twinlens/kernels/step_verdict.h"

namespace twinlens {
namespace {

using namespace cuda;

__global__ void verdict_kernel(StepVerdict a) {
  const float loss = *a.loss, norm = *a.gradient_norm / a.step->loss_scale;
  const bool stopped_before = a.record->skip != 0;
  const bool overflow = a.scaling != nullptr && !stopped_before && isfinite(loss) && !isfinite(norm) && a.scaling->may_halve();
  const bool stopped = stopped_before || (!overflow && (!isfinite(loss) || !isfinite(norm)));
  const bool skip = stopped || overflow;
  const double factor = a.max_norm / (static_cast<double>(norm) + 1e-6);
  const float clip = !skip && a.max_norm > 0.0 && factor < 1.0 ? static_cast<float>(factor) : 1.0F;
  a.step->clip_factor = clip;
  a.step->skip = skip ? 1 : 0;
  if (overflow) a.step->left_out += 1;  // (this one's update does not look)
  if (a.scaling != nullptr && !stopped) a.scaling->count(!overflow);
  *a.record = StepRecord{loss,
                         norm,
                         clip,
                         stopped ? 1 : 0,
                         overflow ? 1 : 0,
                         a.step->loss_scale,
                         a.scaling != nullptr ? *a.scaling : LossScale{},
                         a.step->left_out};
}

}  // namespace

void launch(Cuda, Stream& stream, const StepVerdict& a) { verdict_kernel<<<1, 1, 0, native(stream)>>>(a); }

}  // namespace twinlens
