// The bare attention product, and queries that look at other rows than their own, against PyTorch in float64.

#include <catch2/catch.hpp>
#include <map>

#include "tests/support/golden.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

const Golden& layers() {
  static const Golden golden("layers");
  return golden;
}

Tensor leaf(const std::string& name) { return layers().tensor(name).set_requires_grad(true); }

// (B, H, T, D) -> (B * T, H * D)
Tensor rows_of_heads(const Tensor& x) {
  const std::int64_t b = x.size(0), h = x.size(1), t = x.size(2), d = x.size(3);
  return dense(x.permute({0, 2, 1, 3})).reshape({b * t, h * d});
}

TEST_CASE("attention") {
  for (const bool causal : {false, true}) {
    const std::string name = causal ? "attention_causal" : "attention_full";
    INFO("case " << name);
    std::map<std::string, Tensor> in;
    for (const char* which : {"q", "k", "v"}) in[which] = leaf(name + ".in." + which);
    const Shape shape = in["q"].shape();
    AttentionOptions options;
    options.heads = static_cast<int>(shape[1]);
    options.query_offsets = equal_offsets(shape[0], shape[2]);
    options.causal = causal;
    const Tensor rows = attention(rows_of_heads(in["q"]), rows_of_heads(in["k"]), rows_of_heads(in["v"]), options);
    const Tensor y = dense(rows.reshape({shape[0], shape[2], shape[1], shape[3]}).permute({0, 2, 1, 3}));
    check_golden(layers(), y, name + ".out.y", name + ".err.out.y");
    backward(y, layers().tensor(name + ".grad_out.y"));
    for (const auto& [which, x] : in) check_golden(layers(), x.grad(), name + ".grad_in." + which, name + ".err.grad_in." + which);
  }
}

// torch.nn.MultiheadAttention with other keys and values than queries, put together from ops.
TEST_CASE("cross attention") {
  const std::string name = "mha_cross";
  const Tensor x = leaf(name + ".in.x"), context = leaf(name + ".in.context");
  std::map<std::string, Tensor> p;
  for (const char* which : {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"})
    p[which] = leaf(name + ".param." + which);
  const std::int64_t b = x.size(0), tq = x.size(1), tk = context.size(1), c = x.size(2);
  const Tensor w = p["in_proj_weight"], bias = p["in_proj_bias"];
  const Tensor q = linear(x.reshape({b * tq, c}), w.slice(0, 0, c), bias.slice(0, 0, c));
  const Tensor kv = linear(context.reshape({b * tk, c}), w.slice(0, c, 3 * c), bias.slice(0, c, 3 * c));
  AttentionOptions options;
  options.heads = golden_json("layers")[name]["heads"].get<int>();
  options.query_offsets = equal_offsets(b, tq);
  options.key_offsets = equal_offsets(b, tk);
  const Tensor heads = attention(q, kv.slice(1, 0, c), kv.slice(1, c, 2 * c), options);
  const Tensor y = linear(heads, p["out_proj.weight"], p["out_proj.bias"]).reshape({b, tq, c});
  check_golden(layers(), y, name + ".out.y", name + ".err.out.y");
  backward(y, layers().tensor(name + ".grad_out.y"));
  check_golden(layers(), x.grad(), name + ".grad_in.x", name + ".err.grad_in.x");
  check_golden(layers(), context.grad(), name + ".grad_in.context", name + ".err.grad_in.context");
  for (const auto& [which, value] : p) {
    check_golden(layers(), value.grad(), name + ".grad_param." + which, name + ".err.grad_param." + which);
  }
}

}  // namespace
}  // namespace twinlens::test
