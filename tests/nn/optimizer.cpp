// What surrounds an optimizer step: the clip factor, the skip flag, the moving average.

#include "twinlens/nn/optimizer.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "twinlens/core/autograd.h"

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
