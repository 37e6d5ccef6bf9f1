// AdamW, SGD with momentum and gradient clipping against PyTorch in float64, step by step.

#include <catch2/catch.hpp>
#include <functional>

#include "tests/support/golden.h"

#include "twinlens/core/autograd.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::test {
namespace {

const Golden& optim() {
  static const Golden golden("optim");
  return golden;
}

struct Weights {
  std::vector<std::pair<std::string, Parameter>> all;
  void add(const std::string& name, const Tensor& value) {
    const NoGrad guard;
    all.emplace_back(name, Parameter(value.shape()));
    all.back().second.value.copy_(value);
  }
  void visit(Visitor& v) {
    for (auto& [name, parameter] : all) v(name, parameter);
  }
};

// The vector after each step must lie on PyTorch's path.
void check_path(const std::string& name, const std::function<void(FlatParameters&, const StepBlock&)>& update) {
  INFO("case " << name);
  Weights weights;
  weights.add("weight", optim().tensor(name + ".in.x").reshape({1, 7}));  // two dimensions, so that weight decay applies
  FlatParameters flat(collect(weights), false);
  const Tensor& x = weights.all[0].second.value;
  const Tensor grads = optim().tensor(name + ".in.grads");
  const std::vector<double> rates = optim().truth(name + ".in.lrs");
  StepBlock block;
  std::vector<float> path;
  for (std::int64_t s = 0; s < grads.size(0); ++s) {
    flat.zero_gradients();
    backward(x, grads.select(0, s).reshape({1, 7}));
    block.step = static_cast<std::uint64_t>(s);
    block.learning_rate = static_cast<float>(rates[static_cast<std::size_t>(s)]);
    update(flat, block);
    for (const float value : x.to_vector()) path.push_back(value);
  }
  const Golden::Distance d = optim().distance(path, name + ".out.path", name + ".err.out.path");
  CHECK(d.distance <= d.bound);
}

TEST_CASE("AdamW follows torch.optim.AdamW") {
  for (const char* name : {"adamw", "adamw_no_decay"}) {
    const nlohmann::json settings = golden_json("optim")[name];
    const AdamWOptions options{settings["betas"][0].get<double>(), settings["betas"][1].get<double>(), settings["eps"].get<double>(),
                               settings["weight_decay"].get<double>()};
    check_path(name, [&](FlatParameters& flat, const StepBlock& block) { adamw_step(flat, block, options); });
  }
}

TEST_CASE("SGD follows torch.optim.SGD") {
  for (const char* name : {"sgd_momentum", "sgd_momentum_decay"}) {
    const nlohmann::json settings = golden_json("optim")[name];
    const SgdOptions options{settings["momentum"].get<double>(), settings.value("weight_decay", 0.0), false};
    check_path(name, [&](FlatParameters& flat, const StepBlock& block) { sgd_step(flat, block, options); });
  }
}

// The factor acts inside the optimizer: plain SGD from 0 with rate 1 lands on minus the clipped gradient.
TEST_CASE("clipping follows torch.nn.utils.clip_grad_norm_") {
  for (const std::string name : {"clip", "clip_not_needed"}) {
    INFO("case " << name);
    Weights weights;
    for (const std::string which : {"a", "b"}) weights.add(which, zeros(optim().tensor(name + ".in." + which).shape()));
    FlatParameters flat(collect(weights), false);
    for (auto& [which, parameter] : weights.all) backward(parameter.value, optim().tensor(name + ".in." + which));
    const double norm = flat.gradient_norm();
    check_golden(optim(), scalar(static_cast<float>(norm)), name + ".out.norm", name + ".err.out.norm");
    StepBlock block;
    block.learning_rate = 1.0F;
    block.clip_factor = clip_factor(norm, golden_json("optim")[name]["max_norm"].get<double>());
    CHECK((block.clip_factor == 1.0F) == (name == "clip_not_needed"));
    sgd_step(flat, block, {0.0, 0.0, false});
    const NoGrad guard;
    for (auto& [which, parameter] : weights.all) {
      check_golden(optim(), neg(parameter.value), name + ".out." + which, name + ".err.out." + which);
    }
  }
}

}  // namespace
}  // namespace twinlens::test
