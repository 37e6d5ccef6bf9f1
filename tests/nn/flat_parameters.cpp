// FlatParameters: one block, aligned segments, parameters as views; the rule for weight decay; freezing; the bf16 shadow.

#include "twinlens/nn/flat_parameters.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"
#include "twinlens/nn/layers.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens {
namespace {

// Sizes that do not fill their segments: 15, 5, 6, 3, 65 elements.
struct Small {
  Linear fc{3, 5};
  Parameter positional_embedding{Shape{2, 3}}, class_embedding{Shape{3}};
  Parameter wide{Shape{5, 13}};

  Small() {
    const NoGrad guard;
    float x = 0.0F;
    for (Parameter* p : {&fc.weight, &fc.bias, &positional_embedding, &class_embedding, &wide}) {
      for (std::int64_t i = 0; i < p->value.count(); ++i) p->value.data<float>()[i] = x += 0.25F;
    }
  }
  void visit(Visitor& v) {
    v("fc", fc);
    v("positional_embedding", positional_embedding);
    v("class_embedding", class_embedding);
    v("wide", wide);
  }
};

TEST_CASE("weights that were rounded for use are trained all the same") {
  Small model;
  round_weights(collect(model));
  const FlatParameters flat(collect(model), false);
  Context context;
  context.compute = Compute::bf16;
  const Tensor x = full({2, 3}, 1.0);
  const Tensor y = model.fc(x, context);
  backward(y, full({2, 5}, 1.0).to(y.dtype()));
  CHECK(model.fc.weight.value.grad().to_vector() == std::vector<float>(15, 2.0F));
  const NoGrad guard;
  model.fc.weight.value.fill_(100.0F);
  model.fc.bias.value.fill_(0.0F);
  CHECK(model.fc(x, context).to_vector() == std::vector<float>(10, 300.0F));
}

TEST_CASE("segments follow the visit, aligned to 256 bytes, and do not overlap") {
  Small model;
  const FlatParameters flat(collect(model), false);
  const std::vector<Segment>& segments = flat.segments();
  const std::vector<std::pair<std::string, std::int64_t>> want{
      {"fc.weight", 15}, {"fc.bias", 5}, {"positional_embedding", 6}, {"class_embedding", 3}, {"wide", 65}};
  REQUIRE(segments.size() == want.size());
  std::int64_t end = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    INFO(want[i].first);
    CHECK(segments[i].name == want[i].first);
    CHECK(segments[i].size == want[i].second);
    CHECK(segments[i].offset % 64 == 0);
    CHECK(segments[i].offset >= end);
    CHECK(segments[i].offset < end + 64);
    end = segments[i].offset + segments[i].size;
  }
  CHECK(flat.values.count() >= end);
  for (const Tensor& block : {flat.gradients, flat.moment1, flat.moment2}) CHECK(block.count() == flat.values.count());
}

TEST_CASE("parameters become views that keep their values; gradients and updates meet in the block") {
  Small model;
  const std::vector<float> before = model.wide.value.to_vector();
  FlatParameters flat(collect(model), false);
  const Segment& segment = flat.segments().back();
  CHECK(model.wide.value.to_vector() == before);
  CHECK(model.wide.value.data<float>() == flat.values.data<float>() + segment.offset);

  backward(model.wide.value, full({5, 13}, 2.0));
  backward(model.wide.value, full({5, 13}, 0.5));  // gradients add
  CHECK(flat.gradients.slice(0, segment.offset, segment.offset + segment.size).to_vector() == std::vector<float>(65, 2.5F));
  CHECK(flat.gradient_norm() == Approx(2.5 * std::sqrt(65.0)));

  StepBlock block;
  block.learning_rate = 1.0F;
  sgd_step(flat, block, {0.0, 0.0, false});
  CHECK(model.wide.value.to_vector()[64] == before[64] - 2.5F);
  CHECK(model.fc.weight.value.to_vector()[0] == 0.25F);  // its gradient was 0

  flat.zero_gradients();
  CHECK(flat.gradient_norm() == 0.0);
  CHECK(model.wide.value.grad().to_vector() == std::vector<float>(65, 0.0F));
}

TEST_CASE("forgotten gradients are written over, added to from then on, and zero where nothing came") {
  Small model;
  FlatParameters flat(collect(model), false);
  const Tensor x = full({4, model.fc.weight.value.size(1)}, 0.5), dy = full({4, model.fc.weight.value.size(0)}, 0.25);
  const auto twice = [&] {
    for (int i = 0; i < 2; ++i) backward(linear(x, model.fc.weight.value, model.fc.bias.value), dy);
  };
  flat.zero_gradients();
  twice();
  const std::vector<float> cleared = flat.gradients.to_vector();
  CHECK(flat.gradient_norm() > 0.0);

  for (const Tensor& leaf : {model.fc.weight.value, model.fc.bias.value, model.wide.value}) leaf.grad().detach().fill_(std::nan(""));
  flat.forget_gradients();
  twice();  // does not reach `wide`
  flat.settle_gradients();
  CHECK(flat.gradients.to_vector() == cleared);

  model.wide.value.grad().detach().fill_(std::nan(""));
  flat.forget_gradients();
  backward(model.wide.value, full({5, 13}, 2.0));  // not by way of an accumulator
  backward(model.wide.value, full({5, 13}, 0.5));
  CHECK(flat.gradient_norm() == Approx(2.5 * std::sqrt(65.0)));

  flat.forget_gradients();
  flat.zero_gradients();
  flat.gradients.fill_(1.0);
  CHECK(flat.gradient_norm() == Approx(std::sqrt(static_cast<double>(flat.gradients.count()))));
}

// As PyTorch's p.grad = None.
TEST_CASE("a gradient that set_grad took out of the block comes back when gradients are cleared, and is missed before") {
  StepBlock block;
  block.learning_rate = 1.0F;
  for (const bool forget : {false, true}) {
    for (const bool other : {false, true}) {  // instead of none
      Small model;
      FlatParameters flat(collect(model), false);
      const Tensor& wide = model.wide.value;
      wide.set_grad(other ? full({5, 13}, 100.0) : Tensor{});
      backward(sum(wide));
      const auto is_missed = Catch::StartsWith("FlatParameters: the gradient of 'wide' does not lie in the gradient block");
      CHECK_THROWS_WITH(adamw_step(flat, block, {}), is_missed);
      CHECK_THROWS_WITH(sgd_step(flat, block, {}), is_missed);
      CHECK_THROWS_WITH(flat.gradient_norm(), is_missed);
      CHECK_THROWS_AS(flat.settle_gradients(), AutogradError);
      if (forget) flat.forget_gradients();
      if (!forget) flat.zero_gradients();
      backward(sum(wide));
      CHECK(wide.grad().raw() == flat.gradients.slice(0, flat.segments()[4].offset, flat.gradients.count()).raw());
      CHECK(flat.gradient_norm() == Approx(std::sqrt(65.0)));
      const std::vector<float> before = wide.to_vector();
      sgd_step(flat, block, {0.0, 0.0, false});
      CHECK(wide.to_vector()[64] == before[64] - 1.0F);
      // One that is frozen has no gradient to miss.
      freeze(collect(model), [](const std::string& name) { return name == "wide"; });
      wide.set_grad({});
      CHECK_NOTHROW(flat.gradient_norm());
      CHECK_NOTHROW(sgd_step(flat, block, {0.0, 0.0, false}));
    }
  }
}

TEST_CASE("without a gradient block there is none to clear or to measure") {
  Small model;
  FlatParameters flat(collect(model), false, false);
  const auto refuses = [](const std::string& op) { return Catch::StartsWith(op + ": these parameters have no gradient block"); };
  CHECK_THROWS_WITH(flat.zero_gradients(), refuses("zero_gradients"));
  CHECK_THROWS_WITH(flat.settle_gradients(), refuses("settle_gradients"));
  CHECK_THROWS_WITH(flat.gradient_norm(), refuses("gradient_norm"));
  CHECK_THROWS_WITH(flat.gradient_norm([](const std::string&) { return true; }), refuses("gradient_norm"));
  backward(sum(model.wide.value));
  CHECK(model.wide.value.grad().defined());
  flat.forget_gradients();
  CHECK_FALSE(model.wide.value.grad().defined());
}

TEST_CASE("a gradient that is not finite shows in the norm") {
  Small model;
  FlatParameters flat(collect(model), false);
  backward(model.fc.bias.value, full({5}, std::numeric_limits<double>::infinity()));
  CHECK_FALSE(std::isfinite(flat.gradient_norm()));
}

TEST_CASE("frozen parameters keep their place, get no gradient and no update") {
  Small model;
  freeze(collect(model), [](const std::string& name) { return name.rfind("fc.", 0) == 0; });
  FlatParameters flat(collect(model), false);
  CHECK(flat.segments()[0].frozen);
  CHECK(flat.segments()[1].frozen);
  CHECK_FALSE(flat.segments()[4].frozen);
  CHECK_FALSE(model.fc.weight.value.requires_grad());
  const std::vector<float> before = model.fc.weight.value.to_vector();
  flat.gradients.fill_(1.0);  // even if something stood there
  StepBlock block;
  block.learning_rate = 0.1F;
  adamw_step(flat, block, {});
  CHECK(model.fc.weight.value.to_vector() == before);
  CHECK(model.wide.value.to_vector()[0] < 7.5F);
}

TEST_CASE("freezing after the parameters were laid flat counts, and so does thawing") {
  Small model;
  FlatParameters flat(collect(model), false);
  const Collector names = collect(model);
  const auto is_layer = [](const std::string& name) { return name.rfind("fc.", 0) == 0; };
  const auto forward = [&] { return sum(linear(full({4, 3}, 0.5), model.fc.weight.value, model.fc.bias.value)).to(DType::f32); };
  StepBlock block;
  block.learning_rate = 0.1F;
  const auto step = [&](bool early) {
    if (early) flat.forget_gradients();
    backward(add(forward(), sum(model.wide.value)));
    adamw_step(flat, block, {});
  };
  flat.zero_gradients();
  step(true);
  const std::vector<float> frozen = model.fc.weight.value.to_vector();
  freeze(names, is_layer);
  for (const bool early : {false, true}) {  // (the moments and the decay would move it without a gradient)
    step(early);
    CHECK(model.fc.weight.value.to_vector() == frozen);
    CHECK(flat.segments()[0].frozen);
    CHECK_FALSE(flat.leaves()[0].defined());
    flat.forget_gradients();
    CHECK(flat.gradient_norm() == 0.0);
  }
  for (const bool early : {false, true}) {
    freeze(names, is_layer);
    flat.zero_gradients();
    freeze(names, [](const std::string&) { return false; });
    if (early) flat.forget_gradients();
    backward(forward());
    flat.follow_freezing();
    CHECK_FALSE(flat.segments()[0].frozen);
    CHECK(flat.gradients.slice(0, 0, 15).to_vector() == std::vector<float>(15, 2.0F));
    CHECK(model.fc.weight.value.grad().data<float>() == flat.gradients.data<float>());
  }
  adamw_step(flat, block, {});
  CHECK(model.fc.weight.value.to_vector() != frozen);

  Small other;
  freeze(collect(other), is_layer);
  FlatParameters without(collect(other), false, false);
  freeze(collect(other), [](const std::string&) { return false; });
  CHECK_THROWS_WITH(without.follow_freezing(), Catch::Contains("fc.weight") && Catch::Contains("frozen"));
}

struct Tied {
  Linear in{4, 4}, out{4, 4};
  void visit(Visitor& v) {
    v("in", in);
    v("out", out);
  }
};

TEST_CASE("one tensor under two names stays one; tensors that merely share elements are refused") {
  for (const bool with_shadow : {false, true}) {
    Tied model;
    model.in.weight.value.detach().fill_(0.5);
    model.out.weight = model.in.weight;
    FlatParameters flat(collect(model), with_shadow);
    REQUIRE(flat.segments().size() == 3);
    CHECK(count_parameters(collect(model)) == 16 + 4 + 4);
    CHECK(flat.segments()[2].name == "out.bias");
    CHECK(model.out.weight.value.raw() == model.in.weight.value.raw());
    CHECK(model.out.weight.operand(Compute::bf16).raw() == model.in.weight.operand(Compute::bf16).raw());
    const auto product = [](const Tensor& x, const Parameter& w) { return linear(x, w.value, {}); };
    backward(sum(product(product(full({1, 4}, 1.0), model.in.weight), model.out.weight)));
    CHECK(flat.gradients.slice(0, 0, 16).to_vector() == std::vector<float>(16, 4.0F));  // from both places: 2 each
    StepBlock block;
    block.learning_rate = 0.125F;
    sgd_step(flat, block, {0.0, 0.0, false});
    CHECK(model.out.weight.value.to_vector() == std::vector<float>(16, 0.0F));
  }
  Tied model;
  model.out.weight.value = model.in.weight.value.transpose(0, 1).detach().set_requires_grad(true);
  CHECK_THROWS_WITH(FlatParameters(collect(model), false), Catch::Contains("in.weight and out.weight share elements"));
}

// The contract of on_grad_ready: no op that still runs needs this leaf, but others are needed.
TEST_CASE("a hook that writes to its leaf leaves the others good") {
  for (const bool with_shadow : {false, true}) {
    Tied model;
    for (Linear* layer : {&model.in, &model.out}) layer->weight.value.detach().fill_(0.5);
    FlatParameters flat(collect(model), with_shadow);
    int calls = 0;
    on_grad_ready(model.out.weight.value, [&](const Tensor& leaf) {
      const NoGrad guard;
      Tensor(leaf).fill_(7.0);
      if (with_shadow) model.out.weight.shadow.fill_(7.0);
      ++calls;
    });
    Context context;
    if (with_shadow) context.compute = Compute::bf16;
    Tensor x = full({1, 4}, 1.0).set_requires_grad(true);
    const Tensor y = sum(model.out(model.in(x, context), context).to(DType::f32));
    backward(y);
    CHECK(calls == 1);
    CHECK(x.grad().to_vector() == std::vector<float>(4, 4.0F));
    CHECK(flat.values.to_vector()[static_cast<std::size_t>(flat.segments()[2].offset)] == 7.0F);
    const Tensor again = sum(model.in(x, context).to(DType::f32));
    model.in.weight.value.detach().fill_(1.0);
    if (with_shadow) model.in.weight.shadow.detach().fill_(1.0);
    CHECK_THROWS_AS(backward(again), AutogradError);
  }
}

TEST_CASE("learning-rate factors act by segment") {
  Small model;
  FlatParameters flat(collect(model), false);
  flat.set_lr_factors([](const std::string& name) { return name == "wide" ? 0.5F : 0.0F; });
  const std::vector<float> weight = model.fc.weight.value.to_vector(), wide = model.wide.value.to_vector();
  flat.gradients.fill_(1.0);
  StepBlock block;
  block.learning_rate = 1.0F;
  sgd_step(flat, block, {0.0, 0.0, false});
  CHECK(model.fc.weight.value.to_vector() == weight);
  CHECK(model.wide.value.to_vector()[7] == wide[7] - 0.5F);
}

TEST_CASE("the shadow is the rounded value, before and after a step, and hands its gradient to the master") {
  Small model;
  FlatParameters flat(collect(model), true);
  const auto rounded = [](const Tensor& x) { return x.to(DType::bf16).to_vector(); };
  const NoGrad guard;
  CHECK(model.wide.operand(Compute::bf16).dtype() == DType::bf16);
  CHECK(model.wide.operand(Compute::fp32).dtype() == DType::f32);
  CHECK(model.wide.shadow.to_vector() == rounded(model.wide.value));
  flat.gradients.fill_(1.0);
  StepBlock block;
  block.learning_rate = 0.013F;
  adamw_step(flat, block, {});
  CHECK(model.wide.value.to_vector()[0] != 7.5F);
  CHECK(model.wide.shadow.to_vector() == rounded(model.wide.value));
}

TEST_CASE("weights that are loaded reach the shadow") {
  Small model, other;
  FlatParameters flat(collect(model), true);
  {
    const NoGrad guard;
    for (const NamedParameter& p : collect(other).parameters) p.parameter->value.fill_(1.0078125 / 3);
  }
  load_state_dict(collect(model), state_dict(collect(other)));
  for (const NamedParameter& p : collect(model).parameters) {
    CHECK(p.parameter->value.to_vector() == std::vector<float>(static_cast<std::size_t>(p.parameter->value.count()), 1.0078125F / 3));
    CHECK(p.parameter->shadow.to_vector() == p.parameter->value.to(DType::bf16).to_vector());
  }
}

TEST_CASE("an absent tensor among weights is named, and nothing is loaded") {
  Small model;
  StateDict values;
  for (const auto& [name, tensor] : state_dict(collect(model))) values[name] = full(tensor.shape(), 9.0);
  values["wide"] = Tensor{};
  CHECK_THROWS_AS(load_state_dict(collect(model), values), ConfigError);
  CHECK_THROWS_WITH(load_state_dict(collect(model), values), Catch::Contains("given as Tensor{}: wide;"));
  CHECK(model.fc.weight.value.to_vector()[0] == 0.25F);
}

TEST_CASE("a state dict has no two tensors of one name") {
  struct Twice {
    Linear a{2, 2}, b{2, 2};
    void visit(Visitor& v) {
      v("fc", a);
      v("fc", b);
    }
  } twice;
  CHECK_THROWS_WITH(state_dict(collect(twice)), Catch::Contains("'fc.weight'"));
  CHECK_THROWS_AS(load_state_dict(collect(twice), {}), ConfigError);
  CHECK_THROWS_WITH(FlatParameters(collect(twice), false), Catch::Contains("two tensors are called 'fc.weight'"));
  twice.b = twice.a;  // the same tensors
  CHECK(state_dict(collect(twice)).size() == 2);
}

TEST_CASE("the gradient of a product with the shadow arrives in f32 at the master") {
  Small model;
  FlatParameters flat(collect(model), true);
  Context context;
  context.compute = Compute::bf16;
  const Tensor y = model.fc(full({1, 3}, 0.5), context);  // (1, 5)
  backward(y, full({1, 5}, 1.0).to(y.dtype()));
  REQUIRE(model.fc.weight.value.grad().dtype() == DType::f32);
  CHECK(model.fc.weight.value.grad().to_vector() == std::vector<float>(15, 0.5F));
  CHECK(model.fc.bias.value.grad().to_vector() == std::vector<float>(5, 1.0F));
}

// open_clip: no decay for what has one dimension or none, nor for the positional and class embeddings of transformers; a ResNet names none
// that it would spare.
TEST_CASE("weight decay is for matrices and kernels") {
  const Tensor matrix = zeros({4, 4}), kernel = zeros({4, 3, 2, 2}), vector = zeros({4}), number = zeros({});
  CHECK(has_weight_decay("transformer.resblocks.0.attn.in_proj_weight", matrix));
  CHECK(has_weight_decay("visual.conv1.weight", kernel));
  CHECK(has_weight_decay("token_embedding.weight", matrix));
  CHECK(has_weight_decay("text_projection", matrix));
  CHECK_FALSE(has_weight_decay("transformer.resblocks.0.attn.in_proj_bias", vector));
  CHECK_FALSE(has_weight_decay("ln_final.weight", vector));
  CHECK_FALSE(has_weight_decay("visual.bn1.weight", vector));
  CHECK_FALSE(has_weight_decay("logit_scale", number));
  CHECK_FALSE(has_weight_decay("positional_embedding", matrix));
  CHECK_FALSE(has_weight_decay("visual.positional_embedding", matrix));
  CHECK(has_weight_decay("visual.attnpool.positional_embedding", matrix));
  CHECK_FALSE(has_weight_decay("visual.class_embedding", vector));
  CHECK_FALSE(has_weight_decay("visual.class_embedding", zeros({1, 4})));
}

// With a zero gradient AdamW does nothing but decay: x *= 1 - lr * wd.
TEST_CASE("decay reaches exactly the segments that have it") {
  Small model;
  FlatParameters flat(collect(model), false);
  StepBlock block;
  block.learning_rate = 0.5F;
  const std::vector<float> before = flat.values.to_vector();
  adamw_step(flat, block, {0.9, 0.98, 1e-6, 0.5});
  const std::vector<float> after = flat.values.to_vector();
  for (const Segment& s : flat.segments()) {
    INFO(s.name);
    CHECK(s.decay == (s.name == "fc.weight" || s.name == "wide"));
    const auto i = static_cast<std::size_t>(s.offset);
    CHECK(after[i] == (s.decay ? 0.75F * before[i] : before[i]));
  }
}

}  // namespace
}  // namespace twinlens
