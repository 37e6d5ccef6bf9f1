// What surrounds an optimizer step: the clip factor, the skip flag, the moving average.

#include "twinlens/nn/optimizer.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/nn/layers.h"

namespace twinlens {
namespace {

struct Vector {
  Parameter x{Shape{1, 3}};
  explicit Vector(const std::vector<float>& values) {
    const NoGrad guard;
    x.value.copy_(from_vector(values, {1, 3}));
  }
  void visit(Visitor& v) { v("x", x); }
};

TEST_CASE("clip_factor") {
  CHECK(clip_factor(10.0, 1.0) == Approx(1.0 / (10.0 + 1e-6)).epsilon(1e-7));
  CHECK(clip_factor(0.5, 1.0) == 1.0F);  // never enlarges
  CHECK(clip_factor(0.0, 1.0) == 1.0F);
  CHECK(clip_factor(1e30, 0.0) == 1.0F);  // 0 is off
}

TEST_CASE("clip factor and loss scale both divide the gradient that the optimizer sees") {
  Vector model({1.0F, 2.0F, 3.0F});
  FlatParameters flat(collect(model), false);
  backward(model.x.value, full({1, 3}, 8.0));
  StepBlock block;
  block.learning_rate = 1.0F;
  block.clip_factor = 0.5F;
  block.loss_scale = 4.0F;
  sgd_step(flat, block, {0.0, 0.0, false});
  CHECK(model.x.value.to_vector() == std::vector<float>{0.0F, 1.0F, 2.0F});
}

TEST_CASE("an optimizer refuses what would leave no number in the parameters") {
  Vector model({1.0F, 2.0F, 3.0F});
  FlatParameters flat(collect(model), false);
  backward(model.x.value, full({1, 3}, 8.0));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const StepBlock block;
  CHECK_THROWS_WITH(adamw_step(flat, block, {.beta1 = 1.0}), Catch::Contains("adamw_step: beta1 is 1.0") && Catch::Contains("below 1"));
  CHECK_THROWS_WITH(adamw_step(flat, block, {.beta2 = 1.0}), Catch::Contains("beta2 is 1.0"));
  CHECK_THROWS_WITH(adamw_step(flat, block, {.eps = -1.0}), Catch::Contains("eps is -1.0"));
  CHECK_THROWS_WITH(adamw_step(flat, block, {.weight_decay = nan}), Catch::Contains("weight_decay is nan"));
  CHECK_THROWS_AS(sgd_step(flat, block, {nan, 0.0, false}), ConfigError);
  CHECK_THROWS_WITH(sgd_step(flat, block, {0.0, 0.0, true}), Catch::Contains("nesterov without momentum"));
  const auto check_refused = [&](const char* what, const std::function<void(StepBlock&)>& set) {
    StepBlock wrong;
    set(wrong);
    CHECK_THROWS_WITH(adamw_step(flat, wrong, {}), Catch::Contains(what) && Catch::Contains("; StepBlock; give "));
    CHECK_THROWS_AS(sgd_step(flat, wrong, {0.9, 0.0, false}), ConfigError);
  };
  check_refused("learning_rate is -1", [](StepBlock& b) { b.learning_rate = -1.0F; });
  check_refused("learning_rate is nan", [nan](StepBlock& b) { b.learning_rate = static_cast<float>(nan); });
  check_refused("loss_scale is 0", [](StepBlock& b) { b.loss_scale = 0.0F; });
  check_refused("left_out is 9", [](StepBlock& b) { b.step = 3, b.left_out = 9; });
  CHECK_THROWS_WITH(flat.set_lr_factors([](const std::string&) { return -1.0F; }), Catch::Contains("the factor of 'x' is -1"));
  CHECK_THROWS_AS(flat.set_lr_factors({}), ConfigError);
  CHECK_THROWS_WITH(Ema(flat, 2.0), Catch::Contains("ema: decay is 2.0"));
  Vector other({1.0F, 2.0F, 3.0F});
  FlatParameters bare(collect(other), false, false);
  CHECK_THROWS_WITH(AdamWInBackward(bare, nullptr, {}, false), Catch::Contains("AdamWInBackward: no step block"));
  CHECK(model.x.value.to_vector() == std::vector<float>{1.0F, 2.0F, 3.0F});
}

TEST_CASE("a tape from before a step is not run behind it") {
  Vector model({3.0F, 3.0F, 3.0F});
  FlatParameters flat(collect(model), false);
  const Tensor y = sum(mul(model.x.value, model.x.value));
  flat.gradients.fill_(1.0);
  StepBlock block;
  block.learning_rate = 1.0F;
  SECTION("sgd") { sgd_step(flat, block, {0.0, 0.0, false}); }
  SECTION("adamw") { adamw_step(flat, block, {}); }
  CHECK_THROWS_AS(backward(y), AutogradError);
}

TEST_CASE("a skipped step leaves values and moments as they are") {
  Vector model({1.0F, 2.0F, 3.0F});
  FlatParameters flat(collect(model), true);
  backward(model.x.value, full({1, 3}, std::numeric_limits<double>::quiet_NaN()));
  StepBlock block;
  block.learning_rate = 1.0F;
  block.skip = 1;
  const std::vector<float> shadow = flat.shadow.to_vector();
  adamw_step(flat, block, {});
  sgd_step(flat, block, {});
  CHECK(model.x.value.to_vector() == std::vector<float>{1.0F, 2.0F, 3.0F});
  CHECK(flat.shadow.to_vector() == shadow);
  for (const Tensor& moment : {flat.moment1, flat.moment2}) {
    for (const float m : moment.to_vector()) CHECK(m == 0.0F);
  }
}

// Two layers of which one is used twice, one parameter that is frozen and one that no op uses.
struct Network {
  Linear in{6, 8}, middle{8, 8};
  LayerNorm norm{8};
  Parameter frozen{Shape{2, 3}}, unused{Shape{3, 5}};
  Network() {
    const NoGrad guard;
    float x = 0.0F;
    for (Parameter* p : {&in.weight, &in.bias, &middle.weight, &middle.bias, &frozen, &unused}) {
      for (std::int64_t i = 0; i < p->value.count(); ++i) p->value.data<float>()[i] = std::sin(x += 1.0F);
    }
    frozen.value.set_requires_grad(false);
  }
  Tensor loss(const Tensor& x, Compute compute) const {
    Context context;
    context.compute = compute;
    const DType t = context.activation_dtype();
    const Tensor h = middle(norm(in(x, context, Activation::gelu), t), context);
    return sum(square(middle(h, context).to(DType::f32)));
  }
  void visit(Visitor& v) {
    v("in", in);
    v("middle", middle);
    v("norm", norm);
    v("frozen", frozen);
    v("unused", unused);
  }
};

TEST_CASE("AdamWInBackward gives the bits of backward and adamw_step, and leaves no gradients") {
  const Compute compute = GENERATE(Compute::fp32, Compute::bf16);
  const bool shadow = compute == Compute::bf16;
  Network plain, lean;
  FlatParameters a(collect(plain), shadow), b(collect(lean), shadow, false);
  const auto factor = [](const std::string& name) { return name == "in.weight" ? 0.5F : 1.0F; };
  a.set_lr_factors(factor);
  b.set_lr_factors(factor);
  StepBlock block;
  block.learning_rate = 0.01F;
  const AdamWOptions options;
  AdamWInBackward update(b, &block, options, true);
  const Tensor x = affine(from_vector(std::vector<float>{1, 2, -3, 4, 0, 6, -7, 8, 9, 1, 2, 3}, {2, 6}), 0.1, 0.0);
  for (; block.step < 3; ++block.step) {
    a.forget_gradients();
    backward(plain.loss(x, compute));
    const double norm = a.gradient_norm();
    const double of_middle = a.gradient_norm([](const std::string& name) { return name.rfind("middle", 0) == 0; });
    adamw_step(a, block, options);
    backward(lean.loss(x, compute));
    update.finish_step();
    CHECK(update.gradient_norm() == Approx(norm).epsilon(1e-6));
    CHECK(update.gradient_norm([](const std::string& name) { return name.rfind("middle", 0) == 0; }) == Approx(of_middle).epsilon(1e-6));
    CHECK(norm > 1e-3);
    CHECK(b.values.to_vector() == a.values.to_vector());
    CHECK(b.moment1.to_vector() == a.moment1.to_vector());
    CHECK(b.moment2.to_vector() == a.moment2.to_vector());
    if (shadow) CHECK(b.shadow.to_vector() == a.shadow.to_vector());
    for (const NamedParameter& p : collect(lean).parameters) CHECK_FALSE(p.parameter->value.grad().defined());
  }
  CHECK(lean.unused.value.to_vector() != Network().unused.value.to_vector());  // weight decay
  CHECK(lean.frozen.value.to_vector() == Network().frozen.value.to_vector());
}

struct UpdatedInBackward {
  Network model;
  FlatParameters flat{collect(model), false, false};
  StepBlock block;
  AdamWInBackward update{flat, &block, {}, true};

  Tensor loss() const { return model.loss(full({2, 6}, 0.5), Compute::fp32); }
  void finish_step() {
    update.finish_step();
    ++block.step;
  }
  double norm_of(const std::string& parameter) const {
    return update.gradient_norm([&](const std::string& name) { return name == parameter; });
  }
};

TEST_CASE("AdamWInBackward: the norm of the last step has no part of what has been frozen") {
  UpdatedInBackward u;
  const auto step = [&] {
    backward(u.loss());
    u.finish_step();
    return u.norm_of("in.weight");
  };
  CHECK(step() > 0.0);
  freeze(collect(u.model), [](const std::string& name) { return name == "in.weight" || name == "frozen"; });
  CHECK(step() == 0.0);
}

TEST_CASE("AdamWInBackward: the norm before finish_step() is that of this step's gradients") {
  UpdatedInBackward u;
  backward(add(u.loss(), sum(square(u.model.unused.value))));
  u.finish_step();
  CHECK(u.norm_of("unused") > 0.0);
  backward(u.loss());
  CHECK(u.norm_of("unused") == 0.0);
  const double before = u.update.gradient_norm();
  u.finish_step();
  CHECK(u.update.gradient_norm() == before);
}

TEST_CASE("an update in backward and a gradient block exclude each other") {
  Vector with({1.0F, 2.0F, 3.0F}), without({1.0F, 2.0F, 3.0F});
  FlatParameters a(collect(with), false), b(collect(without), false, false);
  const StepBlock block;
  CHECK_THROWS_WITH(AdamWInBackward(a, &block, {}, false), Catch::Contains("have a gradient block"));
  CHECK_THROWS_WITH(adamw_step(b, block, {}), Catch::Contains("adamw_step") && Catch::Contains("no gradient block"));
  CHECK_THROWS_WITH(sgd_step(b, block, {}), Catch::Contains("sgd_step") && Catch::Contains("no gradient block"));
}

TEST_CASE("Ema follows decay * average + (1 - decay) * value") {
  Vector model({1.0F, -2.0F, 0.0F});
  FlatParameters flat(collect(model), false);
  const double decay = 0.9;
  Ema ema(flat, decay);
  double want[3] = {1.0, -2.0, 0.0};  // starts at the values
  StepBlock block;
  block.learning_rate = 0.125F;
  for (int step = 0; step < 20; ++step) {
    flat.zero_gradients();
    backward(model.x.value, from_vector(std::vector<float>{1.0F, 2.0F, -0.5F}, {1, 3}));
    sgd_step(flat, block, {0.0, 0.0, false});
    ema.update(flat);
    const std::vector<float> value = model.x.value.to_vector();
    for (std::size_t i = 0; i < 3; ++i) want[i] = decay * want[i] + (1.0 - decay) * static_cast<double>(value[i]);
  }
  const std::vector<float> got = ema.average.to_vector();
  for (std::size_t i = 0; i < 3; ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-6).margin(1e-7));
  CHECK(got[0] > model.x.value.to_vector()[0]);  // it lags
}

TEST_CASE("Ema with a decay close to 1 leaves constant values to the bit and is not pulled off those it follows") {
  const double decay = 0.99999;  // in f32 the weights 0.99999 and 0.00001 miss a sum of 1 by more than a thousandth of the latter
  Vector model({0.1F, -2.3F, 1e-3F});
  FlatParameters flat(collect(model), false);
  Ema ema(flat, decay);
  const std::vector<float> still = model.x.value.to_vector();
  for (int step = 0; step < 2000; ++step) ema.update(flat);
  CHECK(ema.average.slice(0, 0, 3).to_vector() == still);
  // A step of the values, of which the average has come part of the way after so many updates.
  flat.values.fill_(1.0);
  for (int step = 0; step < 2000; ++step) ema.update(flat);
  const double left = std::pow(decay, 2000);
  const std::vector<float> got = ema.average.slice(0, 0, 3).to_vector();
  for (std::size_t i = 0; i < 3; ++i) CHECK(got[i] == Approx(1.0 + left * (static_cast<double>(still[i]) - 1.0)).epsilon(2e-5));
}

TEST_CASE("Ema swaps in and out, shadow and parameters included") {
  Vector model({1.0F, 2.0F, 3.0F});
  FlatParameters flat(collect(model), true);
  Ema ema(flat, 0.5);
  StepBlock block;
  block.learning_rate = 1.0F;
  backward(model.x.value, full({1, 3}, 1.0));
  sgd_step(flat, block, {0.0, 0.0, false});
  ema.update(flat);
  const std::vector<float> live{0.0F, 1.0F, 2.0F}, averaged{0.5F, 1.5F, 2.5F};
  CHECK(model.x.value.to_vector() == live);
  ema.swap(flat);
  CHECK(model.x.value.to_vector() == averaged);
  CHECK(model.x.shadow.to_vector() == averaged);  // exact in bf16
  ema.swap(flat);
  CHECK(model.x.value.to_vector() == live);
  CHECK(model.x.shadow.to_vector() == live);
}

}  // namespace
}  // namespace twinlens
