#include <fmt/format.h>
#include <map>
#include <memory>

#include "bench/kernels/rows.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/nn/optimizer.h"

namespace twinlens::bench {
namespace {

// Values of about unit size, made when a row first runs and shared between rows of the same shape.
Tensor values(const Shape& shape, DType dtype) {
  static std::map<std::string, Tensor> made;
  Tensor& x = made[to_string(shape) + (dtype == DType::bf16 ? "b" : "f")];
  if (!x.defined()) {
    std::vector<float> v(static_cast<std::size_t>(shape.count()));
    std::uint32_t state = 12345;
    for (float& value : v) {
      state = state * 1664525U + 1013904223U;
      value = static_cast<float>(state >> 8) * 0x1p-23F - 1.0F;
    }
    x = from_vector(v, shape).to(dtype);
  }
  return x;
}

std::int64_t bytes_of(DType dtype) { return dtype == DType::bf16 ? 2 : 4; }
const char* name_of_type(DType dtype) { return dtype == DType::bf16 ? "bf16" : "f32"; }

struct Product {
  const char* name;
  std::int64_t rows, depth, cols;  // of the forward product y = x w^T
};
// Batch 32 of ViT-B/32: 50 tokens a picture, 77 a caption; and the small ViT's, batch 64.
constexpr Product kProducts[] = {{"ViT-B/32 image qkv", 1600, 768, 2304}, {"ViT-B/32 image out", 1600, 768, 768},
                                 {"ViT-B/32 image fc1", 1600, 768, 3072}, {"ViT-B/32 image fc2", 1600, 3072, 768},
                                 {"ViT-B/32 text qkv", 2464, 512, 1536},  {"ViT-B/32 text fc1", 2464, 512, 2048},
                                 {"ViT-B/32 text fc2", 2464, 2048, 512},  {"small ViT qkv", 4160, 192, 576},
                                 {"small ViT fc1", 4160, 192, 768},       {"logits", 4096, 512, 4096}};

void add_product(const Product& p, DType dtype, const char* layout, Shape a, Shape b, MatmulOptions options, DType out) {
  options.out = out;
  const double flops = 2.0 * static_cast<double>(p.rows * p.depth * p.cols);
  const double bytes = static_cast<double>((p.rows * p.depth + p.depth * p.cols + p.rows * p.cols) * bytes_of(dtype));
  add_row(fmt::format("product/{} {} {}x{}x{}/{}", p.name, layout, p.rows, p.depth, p.cols, name_of_type(dtype)),
          {flops, bytes, dtype == DType::bf16}, [=] { matmul(values(a, dtype), values(b, dtype), options); });
}

void add_products() {
  for (const Product& p : kProducts) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      add_product(p, dtype, "NT", {p.rows, p.depth}, {p.cols, p.depth}, {.transpose_b = true}, dtype);
      add_product(p, dtype, "NN", {p.rows, p.cols}, {p.cols, p.depth}, {}, dtype);
      add_product(p, dtype, "TN", {p.rows, p.cols}, {p.rows, p.depth}, {.transpose_a = true}, DType::f32);
    }
  }
}

struct AttentionShape {
  const char* name;
  std::int64_t sequences, tokens, heads;
  bool causal;
};
constexpr AttentionShape kAttention[] = {{"ViT-B/32 image 32 x 50", 32, 50, 12, false},
                                         {"text 32 x 77 causal", 32, 77, 8, true},
                                         {"text 32 x 20 causal", 32, 20, 8, true},
                                         {"ViT-B/16 image 8 x 197", 8, 197, 12, false},
                                         {"ViT-L/14 image 4 x 257", 4, 257, 16, false},
                                         // Long enough to be timed against another program: bench/parts_against_pytorch.py.
                                         {"large 192 x 50", 192, 50, 12, false},
                                         {"large 192 x 77 causal", 192, 77, 12, true},
                                         {"large 24 x 197", 24, 197, 12, false},
                                         {"large 16 x 257", 16, 257, 12, false}};

void add_attention(const AttentionShape& s, DType dtype, bool gradient) {
  const std::int64_t rows = s.sequences * s.tokens, width = s.heads * 64;
  // Two products forward; four more and one again backward.
  const double meetings = s.causal ? static_cast<double>(s.tokens + 1) / 2.0 : static_cast<double>(s.tokens);
  const double flops = 2.0 * static_cast<double>(rows * width) * meetings * (gradient ? 7.0 : 2.0);
  const double bytes = static_cast<double>(rows * width * bytes_of(dtype)) * (gradient ? 12.0 : 4.0);
  add_row(
      fmt::format("attention/{}, {} heads of 64/{}/{}", s.name, s.heads, name_of_type(dtype), gradient ? "forward+backward" : "forward"),
      {flops, bytes, false}, [=] {
        AttentionOptions options;
        options.heads = static_cast<int>(s.heads);
        options.query_offsets = equal_offsets(s.sequences, s.tokens);
        options.causal = s.causal;
        const Tensor qkv = values({rows, 3 * width}, dtype);
        const Tensor y = attention_qkv(gradient ? inside_a_model(qkv) : qkv, options);
        if (gradient) backward(y, values({rows, width}, dtype));
      });
}

// The contrastive loss of unit features and both their gradients.
void add_info_nce(std::int64_t pairs) {
  const std::int64_t width = 512;
  const double flops = 8.0 * static_cast<double>(pairs * pairs * width);
  auto features = std::make_shared<Tensor>();
  add_row(fmt::format("info_nce/[{},{}]/f32/forward+backward", pairs, width), {flops, 0.0, false}, [=] {
    if (!features->defined()) *features = l2_normalize(values({2 * pairs, width}, DType::f32));
    Tensor rows = features->slice(0, 0, pairs), columns = features->slice(0, pairs, 2 * pairs), scale = full({}, 2.66);
    for (Tensor* x : {&rows, &columns, &scale}) x->set_requires_grad(true);
    backward(info_nce(rows, columns, scale));
  });
}

// An op of one argument at (rows, columns), forward and with its gradient. Passes: how often an element is read or written.
void add_rowwise(const char* name, std::int64_t rows, std::int64_t cols, double passes_forward, double passes_backward,
                 Tensor (*op)(const Tensor&)) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool gradient : {false, true}) {
      const double passes = passes_forward + (gradient ? passes_backward : 0.0);
      add_row(fmt::format("{} [{},{}]/{}/{}", name, rows, cols, name_of_type(dtype), gradient ? "forward+backward" : "forward"),
              {0.0, passes * static_cast<double>(rows * cols * bytes_of(dtype)), false}, [=] {
                const Tensor x = values({rows, cols}, dtype);
                const Tensor y = op(gradient ? inside_a_model(x) : x);
                if (gradient) backward(y, values({rows, cols}, dtype));
              });
    }
  }
}

void add_adamw(std::int64_t count, bool shadow) {
  auto made = std::make_shared<std::pair<Parameter, std::unique_ptr<FlatParameters>>>();
  // Values, both moments read and written, the gradient read, the shadow written.
  const double bytes = static_cast<double>(count) * (shadow ? 30.0 : 28.0);
  add_row(fmt::format("adamw [{}]{}", count, shadow ? " with a bf16 shadow" : ""), {0.0, bytes, false}, [=] {
    if (made->second == nullptr) {
      made->first = Parameter(Shape{count / 512, 512});
      Collector all;
      all.parameters.push_back({"weight", &made->first});
      made->second = std::make_unique<FlatParameters>(all, shadow);
      made->second->gradients.fill_(1e-3);
    }
    StepBlock step;
    step.learning_rate = 1e-6F;
    adamw_step(*made->second, step, {});
  });
}

}  // namespace

void add_shape_rows() {
  add_products();
  for (const AttentionShape& s : kAttention) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const bool gradient : {false, true}) add_attention(s, dtype, gradient);
    }
  }
  for (const std::int64_t pairs : {1024, 4096, 16384}) add_info_nce(pairs);
  add_rowwise("layer_norm", 12800, 768, 2.0, 3.0, [](const Tensor& x) { return layer_norm(x, {}, {}); });
  add_rowwise("quick_gelu", 12800, 3072, 2.0, 3.0, [](const Tensor& x) { return quick_gelu(x); });
  add_rowwise("gelu", 12800, 3072, 2.0, 3.0, [](const Tensor& x) { return gelu(x); });
  add_rowwise("softmax", 4096, 4096, 2.0, 3.0, [](const Tensor& x) { return softmax(x); });
  add_adamw(16 << 20, false);
  add_adamw(16 << 20, true);
}

}  // namespace twinlens::bench
