#include "tests/support/op_case.h"

#include "twinlens/core/ops.h"

namespace twinlens::test {
namespace {

constexpr PatchifyOptions kOpenAi{16, {0.48145466F, 0.4578275F, 0.40821073F}, {0.26862954F, 0.26130258F, 0.27577711F}, DType::f32};

Array reference(const Array& x, const PatchifyOptions& options, bool normalise) {
  const std::int64_t p = options.patch, b = x.shape[0], h = x.shape[1], w = x.shape[2];
  Array y({b * (h / p) * (w / p), 3 * p * p});
  std::int64_t at = 0;
  for (std::int64_t n = 0; n < b; ++n) {
    for (std::int64_t i = 0; i < h / p; ++i) {
      for (std::int64_t j = 0; j < w / p; ++j) {
        for (int c = 0; c < 3; ++c) {
          for (std::int64_t r = 0; r < p; ++r) {
            for (std::int64_t k = 0; k < p; ++k) {
              const double pixel = x[((n * h + i * p + r) * w + j * p + k) * 3 + c];
              const double mean = static_cast<double>(options.mean[c]), deviation = static_cast<double>(options.std[c]);
              y[at++] = normalise ? (pixel / 255.0 - mean) / deviation : pixel;
            }
          }
        }
      }
    }
  }
  return y;
}

OpCase make(const Shape& shape, int patch, DType in, DType out = DType::f32) {
  OpCase c;
  PatchifyOptions options = kOpenAi;
  options.patch = patch;
  options.out = out;
  c.name = to_string(shape) + " patch " + std::to_string(patch) + " " + name_of(in);
  if (in == DType::u8) {
    c.inputs = {CaseInput{Array(shape), DType::u8, false, false}};
    for (std::int64_t i = 0; i < shape.count(); ++i) c.inputs[0].values[i] = static_cast<double>((i * 73 + i / 7) % 256);
  } else {
    c.inputs = {random_input(shape, c.name)};
    c.inputs[0].parameter = true;  // stays f32: bf16 images are refused
  }
  c.call = [options](const std::vector<Tensor>& x) { return patchify(x[0], options); };
  c.reference = [options, in](const std::vector<Array>& x) { return reference(x[0], options, in == DType::u8); };
  if (out == DType::f32 && in == DType::f32) c.tolerance = 0.0;       // values only move
  if (out == DType::bf16) c.tolerance = c.gradient_tolerance = 4e-3;  // the result is rounded
  c.bf16_tolerance = 0.0;
  return c;
}

}  // namespace

OpCases op_cases_patchify() {
  OpCases op;
  for (const DType in : {DType::f32, DType::u8}) {
    op.cases.push_back(make({0, 8, 8, 3}, 4, in));
    op.cases.push_back(make({1, 1, 1, 3}, 1, in));
    op.cases.push_back(make({3, 17, 13, 3}, 1, in));
    op.cases.push_back(make({2, 14, 42, 3}, 14, in));
    op.cases.push_back(make({1, 96, 192, 3}, 96, in));
    op.cases.push_back(make({2, 32, 64, 3}, 16, in, DType::bf16));
  }
  for (const DType in : {DType::f32, DType::u8}) {
    OpCase bench = make({2, 224, 224, 3}, 32, in);
    bench.name = std::string("ViT-B/32, batch 2, ") + name_of(in);
    bench.bench = true;
    bench.bytes = 2.0 * 224 * 224 * 3 * static_cast<double>(4 + size_of(in));
    op.cases.push_back(bench);
  }
  op.errors.push_back({"size no multiple of patch",
                       [] {
                         patchify(zeros({1, 20, 16, 3}), {});
                       },
                       {"patchify", "multiples of patch 16", "[1,20,16,3]"}});
  op.errors.push_back({"four channels", [] { patchify(zeros({1, 16, 16, 4}), {}); }, {"patchify", "(B, H, W, 3)", "[1,16,16,4]"}});
  op.errors.push_back({"i64 pixels", [] { patchify(zeros({1, 16, 16, 3}, DType::i64), {}); }, {"patchify", "f32 or u8", "i64"}});
  for (OpCase& c : op.cases) c.cuda = true;
  return op;
}

}  // namespace twinlens::test
