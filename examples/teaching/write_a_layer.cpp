// A layer of one's own, trained, saved and loaded. A layer is a plain struct: its parameters, an operator() that computes, and one
// function visit() that names what it holds. State dict, counting, freezing and flat parameters come from visit(); there is no base class.

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <twinlens/core/autograd.h>
#include <twinlens/core/random.h>
#include <twinlens/core/safetensors.h>
#include <twinlens/nn/init.h>
#include <twinlens/nn/module.h>
#include <twinlens/nn/optimizer.h>
#include <twinlens/nn/schedule.h>

using namespace twinlens;

namespace {

// Gated linear unit (Dauphin et al. 2017, arXiv:1612.08083): (x W + b) * sigmoid(x V + c), here with a learned scale.
struct GatedLinear {
  Linear value, gate;
  Parameter scale;  // (out)

  GatedLinear(std::int64_t in, std::int64_t out) : value(in, out), gate(in, out), scale(Shape{out}) {}

  Tensor operator()(const Tensor& x, const Context& context) const {  // (N, in) -> (N, out)
    return mul(mul(value(x, context), sigmoid(gate(x, context))), scale.value);
  }
  void visit(Visitor& v) {
    v("value", value);
    v("gate", gate);
    v("scale", scale);
  }
};

// Layers nest: the name of the inner gate's weight is "hidden.gate.weight".
struct Model {
  GatedLinear hidden{2, 16};
  Linear out{16, 1};

  explicit Model(std::uint64_t seed) {
    const Initializer init{seed};
    init.linear(hidden.value, "hidden.value");
    init.linear(hidden.gate, "hidden.gate");
    init.constant(hidden.scale, 1.0);
    init.linear(out, "out");
  }
  Tensor operator()(const Tensor& x, const Context& context = {}) const { return out(hidden(x, context), context); }
  void visit(Visitor& v) {
    v("hidden", hidden);
    v("out", out);
  }
};

}  // namespace

int main() {
  // The task: to multiply. 256 pairs of numbers and their products.
  Tensor pairs = empty({256, 2});
  uniform_(pairs, -1.0, 1.0, 1, site_of("pairs"));
  const Tensor products = mul(pairs.slice(1, 0, 1), pairs.slice(1, 1, 2));  // (256, 1)

  Model model(7);
  FlatParameters flat(collect(model), false);  // values, gradients and moments in one block each; the model's tensors are views of it
  std::printf("%d parameters in %d tensors\n", static_cast<int>(count_parameters(collect(model))), static_cast<int>(flat.segment_count()));

  const Schedule schedule{.base = 0.03, .warmup = 20, .total = 400};
  StepBlock now;  // what changes from step to step; kernels read it through a pointer
  float loss = 0.0F;
  for (std::int64_t step = 0; step < schedule.total; ++step) {
    flat.zero_gradients();
    const Tensor error = mean(square(sub(model(pairs), products)));
    backward(error);
    now.step = static_cast<std::uint64_t>(step);
    now.learning_rate = static_cast<float>(schedule(step));
    now.clip_factor = clip_factor(flat.gradient_norm(), 1.0);
    adamw_step(flat, now, {.weight_decay = 0.0});
    loss = error.item();
    if (step % 100 == 0) std::printf("step %3d  mean squared error %.6f\n", static_cast<int>(step), loss);
  }
  std::printf("step %3d  mean squared error %.6f\n", static_cast<int>(schedule.total), loss);

  // What PyTorch calls a state dict goes to safetensors, and into a model that began elsewhere.
  const std::string path = "gated_linear.safetensors";
  write_safetensors(path, state_dict(collect(model)));
  Model loaded(8);
  load_state_dict(collect(loaded), read_safetensors(path));
  std::filesystem::remove(path);
  const Tensor question = from_vector(std::vector{0.5F, -0.8F}, {1, 2});
  const float answer = model(question).item(), again = loaded(question).item();
  std::printf("0.5 * -0.8 = %.3f, and %.3f after saving and loading\n", answer, again);
  return loss < 1e-3F && std::fabs(answer + 0.4F) < 0.1F && answer == again ? 0 : 1;
}
