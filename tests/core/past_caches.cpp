// Outputs that are written past the caches (kernels/cpu/vec/past_caches.h) hold what plain stores would have written.

#include <catch2/catch.hpp>

#include "tests/kernels/every_set.h"
#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

std::vector<float> values(const std::vector<Tensor>& tensors) {
  std::vector<float> all;
  for (const Tensor& t : tensors) {
    const std::vector<float> of_one = t.to(DType::f32).to_vector();
    all.insert(all.end(), of_one.begin(), of_one.end());
  }
  return all;
}

template <class F>
void differentiate(const Tensor& x, const Tensor& dy, std::vector<Tensor>& results, F&& f) {
  Tensor leaf = dense(x.detach());
  leaf.set_requires_grad(true);
  const Tensor y = f(leaf);
  backward(y, dy);
  results.push_back(y);
  results.push_back(leaf.grad());
}

std::vector<float> all_kernels(const Tensor& x, const Tensor& dy) {
  std::vector<Tensor> results = {add(x, dy), mul(x, dy)};
  differentiate(x, dy, results, [](const Tensor& t) { return gelu(t); });
  differentiate(x, dy, results, [](const Tensor& t) { return clamp(t, -0.5, 0.5); });
  differentiate(x, dy, results, [](const Tensor& t) { return softmax(t); });
  differentiate(x, dy, results, [](const Tensor& t) { return log_softmax(t); });
  differentiate(x, dy, results, [](const Tensor& t) { return layer_norm(t, {}, {}); });
  const Tensor ones = full({x.size(1)}, 1.0), zero = zeros({x.size(1)});
  Tensor mean = zeros({x.size(1)}), variance = full({x.size(1)}, 1.0);
  for (const bool residual : {false, true}) {
    BatchNormOptions options;
    options.training = options.relu = true;
    if (residual) options.residual = dense(dy);
    differentiate(x, dy, results, [&](const Tensor& t) { return batch_norm(t, ones, zero, mean, variance, options); });
  }
  return values(results);
}

// Two sequences, two heads, with and without a mask.
std::vector<float> attention_of(const Tensor& qkv, const Tensor& dy) {
  std::vector<Tensor> results;
  for (const bool causal : {false, true}) {
    AttentionOptions options;
    options.heads = 2;
    options.causal = causal;
    options.query_offsets = from_vector(std::vector<std::int64_t>{0, 30, qkv.size(0)}, {3});
    differentiate(qkv, dy, results, [&](const Tensor& t) { return attention_qkv(t, options); });
  }
  return values(results);
}

// f() with plain stores and past the caches.
template <class F>
void check_both(F&& f) {
  const std::int64_t usual = past_caches_from();
  set_past_caches_from(INT64_MAX);
  const std::vector<float> plain = f();
  set_past_caches_from(0);
  const std::vector<float> past = f();
  set_past_caches_from(usual);
  CHECK(past == plain);
}

TEST_CASE("outputs past the caches hold the same bits") {
  on_every_set([] {
    // Rows of whole lines, of lines and a tail, and of a size whose rows do not begin with a line; over several chunks and blocks.
    for (const Shape& shape : {Shape{70, 256}, Shape{41, 544}, Shape{40, 1000}, Shape{9, 4112}, Shape{23, 77}}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        INFO(to_string(shape) << ' ' << name_of(dtype));
        const Tensor x = test::tensor_of(test::random_input(shape, "x"), dtype),
                     dy = test::tensor_of(test::random_input(shape, "dy"), dtype);
        check_both([&] { return all_kernels(x, dy); });
      }
    }
    for (const std::int64_t head_dim : {32, 64, 40}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        INFO("attention, heads of " << head_dim << ' ' << name_of(dtype));
        const Tensor qkv = test::tensor_of(test::random_input({107, 6 * head_dim}, "qkv"), dtype);
        const Tensor dy = test::tensor_of(test::random_input({107, 2 * head_dim}, "dy"), dtype);
        check_both([&] { return attention_of(qkv, dy); });
      }
    }
  });
}

}  // namespace
}  // namespace twinlens
