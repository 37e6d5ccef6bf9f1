#include "twinlens/kernels/patchify.h"

#include "core/src/ops/elements.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

struct PatchifyNode final : Node {
  Shape shape;
  std::int64_t patch = 1;

  const char* name() const override { return "patchify"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    if (!grads.wants(0)) return;
    const Tensor dy = dense_rows(dy_in);
    Tensor dx = empty(shape, DType::f32, dy.device());
    run(current_stream(dy.device()), PatchifyBackward{const_rows_of(dy), floats(dx), shape[1], shape[2], patch});
    grads.add(0, std::move(dx));
  }

  void release() override {}
};

}  // namespace

Tensor patchify(const Tensor& x, const PatchifyOptions& options) {
  const std::int64_t patch = options.patch;
  check_dtype(x.dtype() == DType::f32 || x.dtype() == DType::u8, "patchify", "x must be f32 or u8", {{"x", x}});
  check_result_dtype("patchify", {"x", x}, options.out);
  check(x.rank() == 4 && x.size(3) == 3, "patchify", "x must be (B, H, W, 3)", {{"x", x}});
  check(patch >= 1 && x.size(1) % patch == 0 && x.size(2) % patch == 0, "patchify",
        "height and width must be multiples of patch " + std::to_string(patch), {{"x", x}});

  const Tensor source = dense(x);
  Tensor y = empty({x.size(0) * (x.size(1) / patch) * (x.size(2) / patch), 3 * patch * patch}, options.out, x.device());
  PatchifyForward args{const_buffer_of(source), rows_of(y), x.size(1), x.size(2), patch, {1, 1, 1}, {0, 0, 0}};
  if (x.dtype() == DType::u8) {
    for (int c = 0; c < 3; ++c) {
      const double mean = static_cast<double>(options.mean[c]), deviation = static_cast<double>(options.std[c]);
      check(deviation > 0.0, "patchify", "std must be positive", {{"x", x}});
      args.scale[c] = static_cast<float>(1.0 / (255.0 * deviation));
      args.shift[c] = static_cast<float>(-mean / deviation);
    }
  }
  run(current_stream(x.device()), args);
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<PatchifyNode>();
  node->shape = x.shape();
  node->patch = patch;
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
