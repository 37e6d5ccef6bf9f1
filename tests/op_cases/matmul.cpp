#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

// alpha op(a) op(b) with leading dimensions that are equal or absent.
Array reference(const Array& a, const Array& b, const MatmulOptions& o) {
  const std::int64_t rows = a.shape[o.transpose_a ? -1 : -2], depth = a.shape[o.transpose_a ? -2 : -1],
                     cols = b.shape[o.transpose_b ? -2 : -1];
  Shape shape = a.shape.rank() >= b.shape.rank() ? a.shape : b.shape;
  shape[-2] = rows;
  shape[-1] = cols;
  Array c(shape);
  std::int64_t items = 1;
  for (int d = 0; d < shape.rank() - 2; ++d) items *= shape[d];
  for (std::int64_t item = 0; item < items; ++item) {
    const std::int64_t a0 = a.shape.rank() > 2 ? item * rows * depth : 0, b0 = b.shape.rank() > 2 ? item * depth * cols : 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        double sum = 0.0;
        for (std::int64_t k = 0; k < depth; ++k) {
          sum += a[a0 + (o.transpose_a ? k * rows + i : i * depth + k)] * b[b0 + (o.transpose_b ? j * depth + k : k * cols + j)];
        }
        c[(item * rows + i) * cols + j] = o.alpha * sum;
      }
    }
  }
  return c;
}

// Shapes as stored.
OpCase make(const Shape& a, const Shape& b, const MatmulOptions& options = {}, const std::string& what = "") {
  OpCase c;
  c.name = to_string(a) + (options.transpose_a ? "^T " : " ") + to_string(b) + (options.transpose_b ? "^T" : "") + what;
  c.inputs = {random_input(a, "a" + c.name), random_input(b, "b" + c.name)};
  c.call = [options](const std::vector<Tensor>& in) { return matmul(in[0], in[1], options); };
  c.reference = [options](const std::vector<Array>& in) { return reference(in[0], in[1], options); };
  return c;
}

// Too large for central differences.
OpCase value_only(OpCase c) {
  for (CaseInput& input : c.inputs) input.differentiable = false;
  return c;
}

MatmulOptions layout(bool transpose_a, bool transpose_b) {
  MatmulOptions o;
  o.transpose_a = transpose_a;
  o.transpose_b = transpose_b;
  return o;
}

// The inputs are f32; what the product sees is bf16.
OpCase in_bf16(const Shape& a, const Shape& b) {
  MatmulOptions options = layout(false, true);
  options.compute = Compute::bf16;
  OpCase c = value_only(make(a, b, options, " f32 in bf16"));
  c.reference = [options](const std::vector<Array>& in) {
    std::vector<Array> rounded = in;
    for (Array& x : rounded) {
      const std::vector<float> low = from_vector(std::vector<float>(x.v.begin(), x.v.end()), x.shape).to(DType::bf16).to_vector();
      x.v.assign(low.begin(), low.end());
    }
    return reference(rounded[0], rounded[1], options);
  };
  return c;
}

// f32 inputs, products in bf16 forwards and backwards; the reference rounds nothing, so that it has differences.
OpCase mixed(const Shape& a, const Shape& b, const MatmulOptions& options, const std::string& what) {
  OpCase c = make(a, b, options, what);
  c.tolerance = c.gradient_tolerance = 5e-3;  // two factors of 8 bits
  return c;
}

}  // namespace

OpCases op_cases_matmul() {
  OpCases op;
  MatmulOptions scaled = layout(false, true);
  scaled.alpha = -0.125;
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      // 33 rows, 65 columns: a row and a register more than tiles hold
      op.cases.push_back(make(ta ? Shape{37, 33} : Shape{33, 37}, tb ? Shape{65, 37} : Shape{37, 65}, layout(ta, tb)));
      op.cases.push_back(make(ta ? Shape{3, 9, 7} : Shape{3, 7, 9}, tb ? Shape{3, 5, 9} : Shape{3, 9, 5}, layout(ta, tb), " batch"));
      // packed by all threads, several tasks, the depth in two blocks (pairs: in two blocks from 3072 on)
      op.cases.push_back(
          value_only(make(ta ? Shape{3101, 19} : Shape{19, 3101}, tb ? Shape{205, 3101} : Shape{3101, 205}, layout(ta, tb))));
    }
  }
  op.cases.push_back(make({1, 1}, {1, 1}));
  op.cases.push_back(make({1, 64}, {64, 1}));
  op.cases.push_back(make({64, 1}, {1, 64}));
  op.cases.push_back(make({2, 2, 11, 6}, {6, 13}, {}, " one b for the batch"));
  op.cases.push_back(make({4, 6, 11}, {6, 13}, layout(true, false), " one b for the batch"));
  op.cases.push_back(make({11, 6}, {4, 13, 6}, layout(false, true), " one a for the batch"));
  op.cases.push_back(make({70, 50, 64}, {70, 50, 64}, scaled, " heads"));
  op.cases.back().inputs[0].differentiable = false;  // 48 central differences of one input are enough at this size
  op.cases.push_back(make({0, 4}, {4, 3}));
  op.cases.push_back(make({3, 0}, {0, 4}));
  op.cases.push_back(make({0, 3, 5}, {5, 4}));
  op.cases.push_back(value_only(make({2, 40000}, {40000, 3})));  // the sum over blocks keeps the error of a long sum small
  op.cases.push_back(value_only(make({2060, 9}, {9, 3100})));    // more rows and columns than are packed at one time
  op.cases.push_back(in_bf16({33, 129}, {50, 129}));
  op.cases.push_back(in_bf16({130, 3300}, {70, 3300}));
  MatmulOptions in_low = layout(false, true), to_f32 = layout(false, true), to_low = layout(true, false);
  in_low.compute = Compute::bf16;
  to_f32.out = DType::f32;
  to_low.out = DType::bf16;
  op.cases.push_back(mixed({17, 129}, {35, 129}, in_low, " f32 in bf16, gradients"));
  op.cases.push_back(make({17, 65}, {35, 65}, to_f32, " to f32"));  // logits of bf16 features
  op.cases.push_back(mixed({65, 17}, {65, 35}, to_low, " to bf16"));

  OpCase bench = value_only(make({50, 768}, {3072, 768}, layout(false, true)));
  bench.name = "ViT-B/32 fc1, one image [50,768] [3072,768]^T";
  bench.bench = true;
  bench.flops = 2.0 * 50 * 768 * 3072;
  bench.bytes = 4.0 * (50 * 768 + 3072 * 768 + 50 * 3072);
  op.cases.push_back(bench);

  op.errors.push_back({"result in f16", [] { matmul(zeros({4, 8}), zeros({8, 3}), {.out = DType::f16}); }, {"matmul", "f16 on CUDA"}});
  op.errors.push_back({"inner sizes",
                       [] {
                         matmul(zeros({4, 8}), zeros({7, 3}));
                       },
                       {"matmul", "inner sizes must agree", "[4,8]", "[7,3]"}});
  op.errors.push_back({"batches",
                       [] {
                         matmul(zeros({2, 4, 8}), zeros({3, 8, 3}));
                       },
                       {"matmul", "leading dimensions", "[2,4,8]", "[3,8,3]"}});
  op.errors.push_back({"dtypes", [] { matmul(zeros({4, 8}), zeros({8, 3}, DType::bf16)); }, {"matmul", "one dtype", "bf16"}});
  op.errors.push_back({"a vector", [] { matmul(zeros({8}), zeros({8, 3})); }, {"matmul", "two dimensions", "[8]"}});
  for (OpCase& c : op.cases) c.cuda = true;
  return op;
}

}  // namespace twinlens::test
