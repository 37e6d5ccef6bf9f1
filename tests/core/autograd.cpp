#include "twinlens/core/autograd.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/scope.h"
#include "twinlens/kernels/trace.h"

namespace twinlens {
namespace {

Tensor leaf(const Shape& shape, double value) {
  Tensor x = full(shape, value);
  x.set_requires_grad(true);
  return x;
}

TEST_CASE("gradients that meet are summed") {
  Tensor x = leaf({2, 3}, 1.0);
  const Tensor y = layer_norm(x.slice(1, 0, 2), {}, {});
  backward(x.transpose(0, 1).reshape({6}), full({6}, 2.0));
  backward(x.slice(0, 0, 1), full({1, 3}, 1.0));
  CHECK(x.grad().to_vector() == std::vector<float>{3, 3, 3, 2, 2, 2});
}

TEST_CASE("a modified saved tensor is an error") {
  Tensor x = leaf({2, 3}, 1.0);
  const Tensor h = x.clone();
  const Tensor y = layer_norm(h, {}, {});
  {
    const NoGrad guard;
    Tensor(h.detach()).fill_(2.0);
  }
  CHECK_THROWS_WITH(backward(y, full({2, 3}, 1.0)), Catch::Contains("layer_norm: a saved tensor was modified in place"));
}

// What an op reads again in backward beside its inputs.
TEST_CASE("masks, offsets, ids and scales that an op keeps are saved tensors, too") {
  const auto ints_of = [](const std::vector<std::int64_t>& v) { return from_vector(v, {static_cast<std::int64_t>(v.size())}); };
  const auto refuses = [](const Tensor& y, const Tensor& kept, const std::string& name) {
    INFO(name);
    kept.mark_written();
    CHECK_THROWS_WITH(backward(y, full(y.shape(), 1.0)), Catch::Contains("modified in place") && Catch::Contains(name + "="));
  };
  StepBlock block;
  for (const bool sample : {true, false}) {
    const RowIds ids{ints_of({0, 1}), ints_of({3, 4})};
    refuses(dropout(leaf({2, 3}, 1.0), 0.5, {&block, 7}, ids), sample ? ids.sample : ids.position, sample ? "ids.sample" : "ids.position");
  }
  for (const std::string name : {"bias", "query_offsets", "key_offsets"}) {
    const Tensor queries = ints_of({0, 2}), keys = ints_of({0, 3}), bias = full({1, 2, 3}, 0.5);
    AttentionOptions options;
    options.query_offsets = queries;
    options.key_offsets = keys;
    options.bias = bias;
    const Tensor y = attention(leaf({2, 8}, 1.0), leaf({3, 8}, 1.0), leaf({3, 8}, 1.0), options);
    // (Of offsets the op's own: those that they were made of may change.)
    refuses(y, name == "bias" ? bias : name == "query_offsets" ? options.query_offsets.tensor() : options.key_offsets.tensor(), name);
  }
  const Tensor mask = full({1, 2, 2}, 0.5);
  AttentionOptions self;
  self.query_offsets = ints_of({0, 2});
  self.bias = mask;
  refuses(attention_qkv(leaf({2, 24}, 1.0), self), mask, "bias");
  for (const std::string name : {"row_ids", "column_ids", "logit_scale"}) {
    InfoNceOptions options;
    options.row_ids = ints_of({0, 1});
    options.column_ids = ints_of({0, 1});
    const Tensor scale = scalar(1.0F);
    const Tensor y = info_nce(leaf({2, 4}, 0.5), leaf({2, 4}, 0.5), scale, options);
    refuses(y, name == "row_ids" ? options.row_ids : name == "column_ids" ? options.column_ids : scale, name);
  }
  for (const std::string name : {"teacher_rows", "teacher_columns", "teacher_logit_scale"}) {
    InfoNceOptions options;
    options.teacher_rows = full({2, 4}, 0.5);
    options.teacher_columns = full({2, 4}, 0.5);
    options.teacher_logit_scale = scalar(1.0F);
    const Tensor y = info_nce(leaf({2, 4}, 0.5), leaf({2, 4}, 0.5), scalar(1.0F), options);
    refuses(y,
            name == "teacher_rows"      ? options.teacher_rows
            : name == "teacher_columns" ? options.teacher_columns
                                        : options.teacher_logit_scale,
            name);
  }
}

TEST_CASE("an error of backward names the op and the scope of the forward pass, wherever backward is called") {
  const Tensor x = full({2}, 3.0).set_requires_grad(true);
  Tensor h, y;
  const Scope train("train");
  {
    const Scope layer("visual");
    h = affine(x, 1.0, 0.0);
    y = square(h);
  }
  h.detach().fill_(0.0);
  CHECK_THROWS_WITH(backward(sum(y)), Catch::StartsWith("square: a saved tensor was modified in place between forward and backward") &&
                                          Catch::Contains("; in train.visual; "));
  CHECK(Scope::path() == "train");
}

TEST_CASE("a leaf that was frozen after the forward pass gets no gradient") {
  Tensor x = from_vector(std::vector<float>{1, 2}, {2}).set_requires_grad(true);
  const Tensor w = from_vector(std::vector<float>{3, 5}, {2}).set_requires_grad(true);
  const Tensor y = mul(square(x), w);
  x.set_requires_grad(false);
  backward(sum(y));
  CHECK_FALSE(x.grad().defined());
  CHECK(w.grad().to_vector() == std::vector<float>{1, 4});
}

TEST_CASE("backward twice says so") {
  Tensor x = leaf({2, 3}, 1.0);
  const Tensor y = layer_norm(x, {}, {});
  backward(y, full({2, 3}, 1.0));
  CHECK_THROWS_AS(backward(y, full({2, 3}, 1.0)), AutogradError);
}

TEST_CASE("NoGrad records nothing and in-place writes on leaves are refused") {
  Tensor x = leaf({2, 2}, 1.0);
  {
    const NoGrad guard;
    CHECK_FALSE(layer_norm(x, {}, {}).requires_grad());
    x.fill_(3.0);
  }
  CHECK_THROWS_AS(x.fill_(1.0), AutogradError);
  CHECK_THROWS_AS(x.slice(0, 0, 1).fill_(1.0), AutogradError);
  CHECK_THROWS_AS(x.select(0, 0).copy_(zeros({2})), AutogradError);
  CHECK_THROWS_AS(affine(x, 2.0, 0.0).fill_(1.0), AutogradError);
  Tensor plain = zeros({2, 2});
  CHECK_THROWS_AS(plain.copy_(affine(x, 2.0, 0.0)), AutogradError);
  plain.copy_(x.detach());
  CHECK(plain.to_vector() == x.to_vector());
}

TEST_CASE("an upstream gradient of another type is converted") {
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor x = leaf({1, 2}, 0.0);
    backward(cross_entropy(x, from_vector(std::vector<std::int64_t>{0}, {1})), full({}, 1.0, type));
    CHECK(x.grad().to_vector() == std::vector<float>{-0.5F, 0.5F});
  }
  for (const DType type : {DType::i64, DType::boolean}) {
    const Tensor x = leaf({2}, 1.0);
    CHECK_THROWS_AS(backward(square(x), full({2}, 1.0, type)), DTypeError);
    CHECK_FALSE(x.grad().defined());
  }
}

TEST_CASE("gradients of f16, which the CPU only stores, meet in f32") {
  Tensor x = full({3, 2}, 1.5, DType::f16);
  x.set_requires_grad(true);
  const Tensor wide = x.to(DType::f32), again = x.to(DType::f32);
  backward(sum(add(mul(wide, wide), again)));
  CHECK(x.grad().to_vector() == std::vector<float>(6, 4.0F));
  backward(concat({x, x}, 0), full({6, 2}, 0.25, DType::f16));
  CHECK(x.grad().to_vector() == std::vector<float>(6, 4.5F));
  const Tensor row = embedding(x, from_vector(std::vector<std::int64_t>{2, 2}, {2}));
  backward(row, full({2, 2}, 1.0, DType::f16));
  CHECK(x.grad().to_vector() == std::vector<float>{4.5F, 4.5F, 4.5F, 4.5F, 6.5F, 6.5F});
  const Tensor chosen = where(full({2}, 1.0, DType::boolean), x, zeros({3, 1}, DType::f16));
  backward(chosen, full({3, 2}, 1.0, DType::f16));
  CHECK(x.grad().to_vector() == std::vector<float>{5.5F, 5.5F, 5.5F, 5.5F, 7.5F, 7.5F});
}

TEST_CASE("random numbers are drawn in place as other writes are") {
  Tensor x = leaf({2}, 3.0);
  CHECK_THROWS_AS(normal_(x, 0.0, 1.0, 1, 2), AutogradError);
  const Tensor y = sum(square(x));
  {
    const NoGrad guard;
    uniform_(x, 0.0, 1.0, 1, 2);
  }
  CHECK_THROWS_AS(backward(y), AutogradError);
}

TEST_CASE("a gradient that backward could not add to is refused") {
  const Tensor x = leaf({2, 2}, 1.0);
  CHECK_THROWS_AS(x.set_grad(zeros({}).expand({2, 2})), ShapeError);
  CHECK_THROWS_AS(x.set_grad(zeros({2, 4}).slice(1, 0, 2)), ShapeError);
  CHECK_THROWS_AS(x.set_grad(zeros({2, 2}).transpose(0, 1)), ShapeError);
  CHECK_THROWS_AS(x.set_grad(zeros({2, 2}, DType::i64)), DTypeError);
  CHECK_THROWS_AS(x.set_grad(zeros({2, 2}, DType::f16)), DTypeError);  // on the CPU
  CHECK_THROWS_AS(x.set_grad(zeros({2, 2}, DType::bf16)), DTypeError);
  Tensor half = zeros({2, 2}, DType::bf16);
  CHECK_NOTHROW(half.set_requires_grad(true).set_grad(zeros({2, 2}, DType::bf16)));
}

TEST_CASE("what an op made keeps no gradient and calls no hook, and says so") {
  const Tensor y = square(leaf({2}, 1.0));
  CHECK_THROWS_WITH(y.set_grad(zeros({2})), Catch::StartsWith("set_grad: only leaves keep gradients"));
  CHECK_THROWS_WITH(on_grad_ready(y, [](const Tensor&) {}), Catch::StartsWith("on_grad_ready: only leaves keep gradients"));
  CHECK_NOTHROW(y.set_grad(Tensor{}));
  CHECK_NOTHROW(on_grad_ready(y, {}));
}

TEST_CASE("a forgotten gradient counts as zero, whoever made it") {
  const Tensor own = leaf({2}, 1.0), bound = leaf({2}, 1.0);
  bound.set_grad(zeros({2}));
  for (const Tensor& x : {own, bound}) {
    forget_grad(x);  // there may be none
    backward(sum(x));
    forget_grad(x);
    backward(add(sum(x), sum(x)));
    CHECK(x.grad().to_vector() == std::vector<float>(2, 2.0F));
    forget_grad(x);
    settle_grad(x);
  }
  CHECK_FALSE(own.grad().defined());
  CHECK(bound.grad().to_vector() == std::vector<float>(2, 0.0F));
}

// A node of one input, whose backward does as the test says.
struct CustomNode final : Node {
  std::function<void(const Tensor&, Gradients&)> run;
  const char* name() const override { return "custom"; }
  void backward(const Tensor& dy, Gradients& grads) override { run(dy, grads); }
  void release() override {}
};

TEST_CASE("a node that names an input it does not have is refused") {
  const auto refuses = [](const std::string& text, const std::function<void(const Tensor&, Gradients&)>& run) {
    const Tensor x = leaf({2}, 1.0);
    auto node = std::make_shared<CustomNode>();
    node->run = run;
    const Tensor y = record(full({2}, 1.0), node, {&x});
    CHECK_THROWS_AS(backward(y, full({2}, 1.0)), AutogradError);
    auto again = std::make_shared<CustomNode>();
    again->run = run;
    CHECK_THROWS_WITH(backward(record(full({2}, 1.0), again, {&x}), full({2}, 1.0)), Catch::StartsWith("custom: backward " + text));
  };
  for (const int i : {1, -1}) {
    const std::string text = "names input " + std::to_string(i) + ", and inputs recorded are 1; ";
    refuses(text, [i](const Tensor& dy, Gradients& grads) { grads.add(i, dy); });
    refuses(text, [i](const Tensor&, Gradients& grads) { grads.wants(i); });
    refuses(text, [i](const Tensor&, Gradients& grads) { grads.accumulator(i); });
    refuses(text, [i](const Tensor&, Gradients& grads) { grads.done(i); });
  }
  refuses("says that input 0 is done", [](const Tensor&, Gradients& grads) { grads.done(0); });
  const Tensor x = leaf({2}, 1.0);
  CHECK_THROWS_AS(record(full({2}, 1.0), nullptr, {&x}), AutogradError);
}

TEST_CASE("a hook may remove itself, or put another in its place") {
  const Tensor x = leaf({2}, 1.0);
  std::string calls;
  const std::string once = "a name that is too long to lie in the function itself";
  on_grad_ready(x, [&calls, once](const Tensor& ready) {
    on_grad_ready(ready, {});
    calls += once.substr(0, 6);
  });
  backward(sum(x));
  backward(sum(x));
  CHECK(calls == "a name");
  on_grad_ready(x, [&calls, once](const Tensor& ready) {
    on_grad_ready(ready, [&calls](const Tensor&) { calls += "2"; });
    calls += once.substr(1, 1);
  });
  backward(sum(x));
  backward(sum(x));
  CHECK(calls == "a name 2");
}

TEST_CASE("an embedding adds its gradient to a flat block in place") {
  const auto ids = from_vector(std::vector<std::int64_t>{2, 0, 2}, {3});
  Tensor table = leaf({4, 2}, 1.0);
  const Tensor block = full({4, 2}, 10.0);
  table.set_grad(block);
  int ready = 0;
  on_grad_ready(table, [&](const Tensor&) { ++ready; });
  backward(embedding(table, ids), from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}));
  CHECK(block.to_vector() == std::vector<float>{13, 14, 10, 10, 16, 18, 10, 10});
  CHECK(ready == 1);
  // A bf16 shadow sends its gradient to the f32 block of its master.
  const Tensor shadow = table.detach().to(DType::bf16);
  share_gradient(shadow, table);
  const Tensor y = embedding(shadow, ids);
  CHECK(y.dtype() == DType::bf16);
  backward(y, full({3, 2}, 1.0, DType::bf16));
  CHECK(block.to_vector() == std::vector<float>{14, 15, 10, 10, 18, 20, 10, 10});
  CHECK(ready == 2);
}

std::int64_t calls_of(const std::string& kernel) {
  for (const KernelTime& time : kernel_times()) {
    if (time.name == kernel) return time.calls;
  }
  return 0;
}

TEST_CASE("a hook fires as soon as its leaf is complete, while earlier layers still wait") {
  constexpr int kLayers = 4;
  Tensor gamma[kLayers], beta[kLayers];
  std::vector<std::pair<int, std::int64_t>> fired;  // layer, backward kernels run by then
  Tensor h = leaf({3, 8}, 1.0);
  for (int i = 0; i < kLayers; ++i) {
    gamma[i] = leaf({8}, 1.0);
    beta[i] = leaf({8}, 0.5);
    on_grad_ready(gamma[i], [&fired, i](const Tensor& ready) {
      CHECK(ready.grad().defined());
      fired.emplace_back(i, calls_of("layer_norm_backward"));
    });
    h = layer_norm(h, gamma[i], beta[i]);
  }
  set_tracing(true);
  reset_kernel_times();
  backward(h, full({3, 8}, 1.0));
  set_tracing(false);
  CHECK(fired == std::vector<std::pair<int, std::int64_t>>{{3, 1}, {2, 2}, {1, 3}, {0, 4}});
}

TEST_CASE("a leaf used twice fires once, when both gradients are there") {
  Tensor gamma = leaf({8}, 1.0);
  int fired = 0;
  on_grad_ready(gamma, [&](const Tensor& ready) {
    ++fired;
    CHECK(ready.grad().to_vector()[0] == Approx(2.0));  // one from each use
  });
  const Tensor x = from_vector(std::vector<float>{1, -1, 1, -1, 1, -1, 1, -1}, {1, 8});
  backward(concat({layer_norm(x, gamma, {}), layer_norm(x, gamma, {})}, 0), full({2, 8}, 1.0));
  CHECK(fired == 1);
}

TEST_CASE("a hook may change its leaf and take the gradient away") {
  Tensor w = leaf({4, 4}, 0.5);
  on_grad_ready(w, [](const Tensor& ready) {
    const NoGrad guard;
    Tensor(ready.detach()).fill_(7.0);
    ready.set_grad(Tensor{});
  });
  Tensor x = leaf({2, 4}, 1.0);
  backward(linear(linear(x, w, {}), w, {}), full({2, 4}, 1.0));
  CHECK(x.grad().to_vector() == std::vector<float>(8, 4.0F));  // by the weights as they were: (4 * 0.5)^2
  CHECK(w.to_vector() == std::vector<float>(16, 7.0F));
  CHECK_FALSE(w.grad().defined());
}

// Gradients of everything, and what the tape keeps, of an MLP behind a norm.
struct MlpRun {
  std::vector<std::vector<float>> gradients;
  std::size_t kept = 0;
};
MlpRun run_mlp(bool recompute, Activation activation) {
  constexpr std::int64_t kRows = 256, kWidth = 64, kHidden = 256;
  const auto made = [](const Shape& shape, double step) {
    Tensor x = empty(shape);
    for (std::int64_t i = 0; i < x.count(); ++i) x.data<float>()[i] = static_cast<float>(std::sin(step * static_cast<double>(i + 1)));
    return x.set_requires_grad(true);
  };
  const Tensor x = made({kRows, kWidth}, 0.37), gamma = made({kWidth}, 0.11), beta = made({kWidth}, 0.7);
  const Tensor up = made({kHidden, kWidth}, 0.13), bias = made({kHidden}, 0.9), down = made({kWidth, kHidden}, 0.17);
  const std::size_t before = memory_report(kCpu).bytes;
  Tensor y;
  {
    LinearOptions options;
    options.activation = activation;
    options.recompute = recompute;
    y = linear(linear(layer_norm(x, gamma, beta, 1e-5, {}, recompute), up, bias, options), down, {});
  }
  MlpRun run;
  run.kept = memory_report(kCpu).bytes - before;
  backward(y, made({kRows, kWidth}, 0.29).detach());
  for (const Tensor& leaf : {x, gamma, beta, up, bias, down}) run.gradients.push_back(leaf.grad().to_vector());
  return run;
}

TEST_CASE("what is recomputed is not kept, and the gradients have the same bits") {
  const Activation activation =
      GENERATE(Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::quick_gelu, Activation::silu);
  const MlpRun kept = run_mlp(false, activation), recomputed = run_mlp(true, activation);
  CHECK(recomputed.gradients == kept.gradients);
  // Normalised rows and activations: (256, 64) and (256, 256) floats.
  CHECK(kept.kept - recomputed.kept == (256 * 64 + 256 * 256) * sizeof(float));
}

TEST_CASE("a recipe is not used for a result that was changed before an op took it") {
  Tensor x = leaf({3, 8}, 1.0), w = leaf({2, 8}, 0.5);
  x.detach().data<float>()[3] = 4.0F;
  Tensor h = layer_norm(x, {}, {}, 1e-5, {}, true);
  {
    const NoGrad guard;
    Tensor(h.detach()).fill_(2.0);
  }
  backward(linear(h, w, {}), full({3, 2}, 1.0));
  CHECK(w.grad().to_vector() == std::vector<float>(16, 6.0F));
  // And the tensors that a recipe is made from must not change.
  const Tensor gamma = leaf({8}, 1.0);
  const Tensor y = linear(layer_norm(x, gamma, {}, 1e-5, {}, true), w, {});
  {
    const NoGrad guard;
    Tensor(gamma.detach()).fill_(2.0);
  }
  CHECK_THROWS_WITH(backward(y, full({3, 2}, 1.0)), Catch::Contains("gamma") && Catch::Contains("modified in place"));
}

TEST_CASE("frozen inputs cost nothing backwards") {
  const auto tower = [](const Tensor& x, const Tensor& gamma, const Tensor& head) {
    Tensor h = x;
    for (int i = 0; i < 5; ++i) h = layer_norm(h, gamma, {});
    return l2_normalize(layer_norm(h, head, {}));
  };
  const Tensor x = full({4, 8}, 1.0), frozen = full({8}, 1.0);
  const Tensor images = tower(x, frozen, frozen);
  CHECK_FALSE(images.requires_grad());
  const Tensor trained_head = leaf({8}, 1.0);
  const Tensor texts = tower(x, frozen, trained_head);
  set_tracing(true);
  reset_kernel_times();
  backward(concat({images, texts}, 0), full({8, 8}, 1.0));
  set_tracing(false);
  CHECK(calls_of("layer_norm_backward") == 1);
  CHECK(calls_of("l2_normalize_backward") == 1);
  CHECK(trained_head.grad().defined());
}

Tensor chain(const Tensor& x, int length) {
  Tensor h = x;
  for (int i = 0; i < length; ++i) h = affine(h, 1.0, 0.0);
  return h;
}

TEST_CASE("100000 nodes in a row overflow the stack neither in backward nor when they are dropped") {
  const Tensor x = leaf({1}, 1.0);
  backward(chain(x, 100'000));
  CHECK(x.grad().item() == 1.0F);
  { const Tensor dropped = chain(x, 100'000); }
  // Two chains that end in one node, one of them still held by a handle.
  Tensor kept;
  {
    kept = chain(x, 50'000);
    const Tensor dropped = concat({chain(kept, 50'000), chain(x, 100'000)}, 0);
  }
  backward(kept);
  CHECK(x.grad().item() == 2.0F);
}

}  // namespace
}  // namespace twinlens
