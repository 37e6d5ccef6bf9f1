// Every layer against PyTorch in float64: outputs, input gradients, parameter gradients.

#include <catch2/catch.hpp>
#include <functional>
#include <map>

#include "tests/support/golden.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"
#include "twinlens/nn/init.h"
#include "twinlens/nn/module.h"
#include "twinlens/nn/transformer.h"

namespace twinlens::test {
namespace {

const Golden& layers() {
  static const Golden golden("layers");
  return golden;
}

Tensor leaf(const std::string& name) {
  Tensor x = layers().tensor(name);
  if (x.dtype() == DType::f32) x.set_requires_grad(true);
  return x;
}

// A case whose inputs are rows of features: y = fn(x), gradients of x and of the module's parameters.
template <class Module>
void check_module(const std::string& name, Module& module, const std::function<Tensor(const Tensor&)>& fn, bool images = false) {
  INFO("case " << name);
  const Collector all = collect(module);
  StateDict weights;
  for (const NamedParameter& p : all.parameters) weights.emplace(p.name, layers().tensor(name + ".param." + p.name));
  for (const NamedBuffer& b : all.buffers) weights.emplace(b.name, layers().tensor(name + ".in." + b.name));
  load_state_dict(all, weights);
  Tensor x = leaf(name + ".in.x");
  const Tensor y = images ? nhwc_to_nchw(fn(nchw_to_nhwc(x))) : fn(x);
  check_golden(layers(), y, name + ".out.y", name + ".err.out.y");
  backward(y, layers().tensor(name + ".grad_out.y"));
  if (x.dtype() == DType::f32) check_golden(layers(), x.grad(), name + ".grad_in.x", name + ".err.grad_in.x");
  for (const NamedParameter& p : all.parameters) {
    REQUIRE(p.parameter->value.grad().defined());
    const Tensor g = p.parameter->value.grad();
    if (p.name.find("in_proj_bias") != std::string::npos) {
      // The key third has an exactly zero gradient (it shifts a softmax row evenly): an absolute bound there.
      const std::int64_t d = g.count() / 3;
      const std::vector<float> all_thirds = g.to_vector();
      for (std::int64_t i = d; i < 2 * d; ++i) CHECK(std::abs(all_thirds[static_cast<std::size_t>(i)]) < 1e-6F);
    }
    check_golden(layers(), g, name + ".grad_param." + p.name, name + ".err.grad_param." + p.name);
  }
}

TEST_CASE("Linear") {
  for (const char* name : {"linear", "linear_3d", "linear_no_bias"}) {
    const Tensor w = layers().tensor(std::string(name) + ".param.weight");
    Linear module(w.size(1), w.size(0), layers().has(std::string(name) + ".param.bias"));
    check_module(name, module, [&](const Tensor& x) { return module(x, {}); });
  }
}

// torch.nn.Linear(0, n) has biases of 0, Linear(n, 0) nothing to fill.
TEST_CASE("a Linear without inputs or outputs is initialised") {
  Linear no_inputs(0, 3), no_outputs(3, 0);
  no_inputs.bias.value.detach().fill_(5.0);
  const Initializer init{1};
  init.linear(no_inputs, "a");
  CHECK(no_inputs.bias.value.to_vector() == std::vector<float>(3, 0.0F));
  CHECK_NOTHROW(init.linear(no_outputs, "b"));
}

TEST_CASE("LayerNorm") {
  for (const auto& [name, eps] : {std::pair<const char*, double>{"layer_norm", 1e-5}, {"layer_norm_eps6", 1e-6}}) {
    LayerNorm module(layers().tensor(std::string(name) + ".param.weight").count(), eps);
    check_module(name, module, [&](const Tensor& x) { return module(x, DType::f32); });
  }
}

TEST_CASE("Embedding") {
  const Tensor w = layers().tensor("embedding.param.weight");
  Embedding module(w.size(0), w.size(1));
  check_module("embedding", module, [&](const Tensor& ids) { return module(ids); });
}

TEST_CASE("BatchNorm2d") {
  for (const bool training : {true, false}) {
    const std::string name = training ? "batch_norm_train" : "batch_norm_eval";
    BatchNorm2d module(layers().tensor(name + ".param.weight").count());
    Context context;
    context.training = training;
    check_module(
        name, module, [&](const Tensor& x) { return module(x, context); }, true);
    if (training) {
      check_golden(layers(), module.running_mean, name + ".out.running_mean", name + ".err.out.running_mean");
      check_golden(layers(), module.running_var, name + ".out.running_var", name + ".err.out.running_var");
    }
  }
}

TEST_CASE("BatchNorm2d refuses activations that it would leave out") {
  const BatchNorm2d module(3);
  const Tensor x = full({1, 2, 2, 3}, -1.0);
  CHECK(module(x, {}, Activation::relu).to_vector() == std::vector<float>(12, 0.0F));
  CHECK_THROWS_AS(module(x, {}, Activation::gelu), ShapeError);
}

Tensor rows_then_back(const Tensor& x, const std::function<Tensor(const Tensor& rows, const SequenceOffsets& offsets)>& fn) {
  const std::int64_t b = x.size(0), t = x.size(1);
  return fn(x.reshape({b * t, x.size(2)}), equal_offsets(b, t)).reshape(x.shape());
}

TEST_CASE("MultiheadAttention") {
  const nlohmann::json attributes = golden_json("layers");
  for (const bool causal : {false, true}) {
    const std::string name = causal ? "mha_causal" : "mha_full";
    MultiheadAttention module(layers().tensor(name + ".in.x").size(2), attributes[name]["heads"].get<int>());
    check_module(name, module, [&](const Tensor& x) {
      return rows_then_back(x, [&](const Tensor& rows, const SequenceOffsets& offsets) { return module(rows, offsets, causal, {}, {}); });
    });
  }
}

TEST_CASE("MultiheadAttention refuses heads that do not divide its width") {
  CHECK_THROWS_WITH(MultiheadAttention(6, 4), Catch::Contains("a width of 6 has no 4 heads"));
  CHECK_THROWS_AS(MultiheadAttention(6, 0), ConfigError);
}

TEST_CASE("Mlp") {
  for (const auto& [name, activation] :
       {std::pair<const char*, Activation>{"mlp_gelu", Activation::gelu}, {"mlp_quick_gelu", Activation::quick_gelu}}) {
    const Tensor w = layers().tensor(std::string(name) + ".param.c_fc.weight");
    Mlp module(w.size(1), w.size(0), activation);
    check_module(name, module, [&](const Tensor& x) { return module(x, {}, {}); });
  }
}

Activation activation_of(const nlohmann::json& attributes) {
  return attributes["activation"] == "quick_gelu" ? Activation::quick_gelu : Activation::gelu;
}

TEST_CASE("ResidualAttentionBlock") {
  const nlohmann::json attributes = golden_json("layers");
  for (const bool causal : {false, true}) {
    const std::string name = causal ? "block_causal" : "block";
    const Tensor w = layers().tensor(name + ".param.mlp.c_fc.weight");
    ResidualAttentionBlock module(w.size(1), attributes[name]["heads"].get<int>(), w.size(0), activation_of(attributes[name]));
    check_module(name, module, [&](const Tensor& x) {
      return rows_then_back(x, [&](const Tensor& rows, const SequenceOffsets& offsets) { return module(rows, offsets, causal, {}); });
    });
  }
}

TEST_CASE("pooled last block equals the whole one at its row") {
  const std::string name = "block_causal";
  const nlohmann::json attributes = golden_json("layers");
  const Tensor w = layers().tensor(name + ".param.mlp.c_fc.weight");
  ResidualAttentionBlock module(w.size(1), attributes[name]["heads"].get<int>(), w.size(0), activation_of(attributes[name]));
  StateDict weights;
  for (const NamedParameter& p : collect(module).parameters) weights.emplace(p.name, layers().tensor(name + ".param." + p.name));
  load_state_dict(collect(module), weights);
  const Tensor x = layers().tensor(name + ".in.x");
  const std::int64_t b = x.size(0), t = x.size(1);
  const Tensor rows = x.reshape({b * t, x.size(2)});
  std::vector<std::int64_t> last;
  for (std::int64_t i = 0; i < b; ++i) last.push_back((i + 1) * t - 1);
  const Tensor picked = from_vector(last, {b});
  const std::vector<float> whole = index_select(module(rows, equal_offsets(b, t), true, {}), 0, picked).to_vector();
  const std::vector<float> pooled = module.pooled(rows, picked, equal_offsets(b, t), true, {}).to_vector();
  REQUIRE(pooled.size() == whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) CHECK(pooled[i] == Approx(whole[i]).margin(2e-6));
}

TEST_CASE("a pooled row is one of its own sequence, and with a causal mask the last") {
  const ResidualAttentionBlock module(8, 2, 16, Activation::gelu);
  const Tensor x = full({7, 8}, 1.0);
  const SequenceOffsets offsets({0, 3, 7});
  const auto pooled = [&](const std::vector<std::int64_t>& rows, bool causal) {
    return module.pooled(x, from_vector(rows, {static_cast<std::int64_t>(rows.size())}), offsets, causal, {}).shape();
  };
  CHECK(pooled({2, 6}, true) == Shape{2, 8});
  CHECK(pooled({0, 4}, false) == Shape{2, 8});
  CHECK_THROWS_WITH(pooled({2, 5}, true), Catch::Contains("picked[1] = 5") && Catch::Contains("last row"));
  CHECK_THROWS_AS(pooled({4, 0}, false), ShapeError);
  CHECK_THROWS_AS(pooled({2}, false), ShapeError);
}

TEST_CASE("a Dropout layer draws by its site, and is refused without one") {
  StepBlock step{};
  Context context;
  context.training = true;
  context.step = &step;
  const Tensor x = full({4, 64}, 1.0);
  const Dropout first{0.5, site_of("blocks.0.drop")}, second{0.5, site_of("blocks.1.drop")}, nowhere{0.5};
  CHECK(first(x, context, {}).to_vector() != second(x, context, {}).to_vector());
  CHECK_THROWS_AS(nowhere(x, context, {}), ConfigError);
  CHECK(nowhere(x, Context{}, {}).to_vector() == x.to_vector());
}

// Activations and row functions that modules use through ops.
TEST_CASE("functions") {
  const std::map<std::string, std::function<Tensor(const Tensor&)>> functions{
      {"gelu", [](const Tensor& x) { return gelu(x); }},
      {"gelu_tanh", [](const Tensor& x) { return gelu_tanh(x); }},
      {"quick_gelu", [](const Tensor& x) { return quick_gelu(x); }},
      {"silu", [](const Tensor& x) { return silu(x); }},
      {"sigmoid", [](const Tensor& x) { return sigmoid(x); }},
      {"log_sigmoid", [](const Tensor& x) { return log_sigmoid(x); }},
      {"relu", [](const Tensor& x) { return relu(x); }},
      {"softmax", [](const Tensor& x) { return softmax(x); }},
      {"log_softmax", [](const Tensor& x) { return log_softmax(x); }},
      {"l2_normalize", [](const Tensor& x) { return l2_normalize(x); }},
      {"cross_entropy", [](const Tensor& x) { return cross_entropy(x, layers().tensor("cross_entropy.in.targets")); }},
  };
  for (const auto& [name, fn] : functions) {
    INFO("case " << name);
    Tensor x = leaf(name + ".in.x");
    const Tensor y = fn(x);
    check_golden(layers(), y, name + ".out.y", name + ".err.out.y");
    backward(y, layers().tensor(name + ".grad_out.y"));
    check_golden(layers(), x.grad(), name + ".grad_in.x", name + ".err.grad_in.x");
  }
}

}  // namespace
}  // namespace twinlens::test
