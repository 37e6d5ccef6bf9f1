// A convolution that reads its windows in place against its plain form, which writes them out, and products whose depth is shared out
// among threads.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "tests/support/op_case.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/parallel.h"
#include "twinlens/kernels/stream.h"
#include "twinlens/kernels/trace.h"

namespace twinlens {
namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  return std::memcmp(dense(a).raw(), dense(b).raw(), static_cast<std::size_t>(a.count() * size_of(a.dtype()))) == 0;
}

double relative(const Tensor& a, const Tensor& b) {
  const Tensor x = dense(a.to(kCpu)), y = dense(b.to(kCpu));
  double difference = 0.0, size = 0.0;
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const double u = static_cast<double>(x.data<float>()[i]), v = static_cast<double>(y.data<float>()[i]);
    difference += (u - v) * (u - v);
    size += v * v;
  }
  return std::sqrt(difference / std::max(size, 1e-300));
}

struct Convolved {
  Tensor y, dx, dw;
};

Convolved convolved(const Shape& x_shape, const Shape& w_shape, ConvOptions options, bool in_memory, Device device = kCpu,
                    DType dtype = DType::f32) {
  options.windows_in_memory = in_memory;
  Tensor x = test::tensor_of(test::random_input(x_shape, "x")).to(dtype).to(device);
  Tensor w = test::tensor_of(test::random_input(w_shape, "w")).to(device);
  x.set_requires_grad(true);
  w.set_requires_grad(true);
  const Tensor y = conv2d(x, w, {}, options);
  backward(y, test::tensor_of(test::random_input(y.shape(), "dy")).to(y.dtype()).to(device));
  return {y, x.grad(), w.grad()};
}

TEST_CASE("conv2d: windows in place and windows written out") {
  struct Case {
    Shape x, w;
    ConvOptions options;
  };
  ConvOptions padded, strided, dilated, grouped, wide, bf16;
  padded.padding = 1;
  strided.stride = 2;
  strided.padding = 1;
  dilated.dilation = 2;
  dilated.padding = 3;
  grouped.groups = 2;
  grouped.padding = 1;
  wide.padding = 4;  // more than the kernel reaches: no turned convolution
  bf16.compute = Compute::bf16;
  bf16.padding = 1;
  const Case cases[] = {
      {{3, 7, 9, 5}, {6, 5, 3, 3}, {}},         {{3, 7, 9, 5}, {6, 5, 3, 3}, padded},    {{2, 9, 7, 3}, {4, 3, 3, 3}, strided},
      {{2, 8, 9, 4}, {3, 4, 3, 3}, dilated},    {{2, 6, 5, 6}, {8, 3, 3, 3}, grouped},   {{2, 5, 5, 3}, {2, 3, 2, 2}, wide},
      {{2, 6, 6, 3}, {4, 3, 3, 1}, {}},         {{4, 24, 24, 8}, {16, 8, 3, 3}, padded}, {{2, 9, 9, 8}, {4, 8, 3, 3}, bf16},
      {{1, 6, 6, 600}, {3, 600, 3, 3}, padded},
  };
  for (const Case& c : cases) {
    INFO("x " << to_string(c.x) << ", w " << to_string(c.w) << ", stride " << c.options.stride << ", dilation " << c.options.dilation);
    const Convolved in_place = convolved(c.x, c.w, c.options, false), plain = convolved(c.x, c.w, c.options, true);
    CHECK(same_bits(in_place.y, plain.y));
    CHECK(same_bits(in_place.dw, plain.dw));
    CHECK(relative(in_place.dx, plain.dx) < (c.options.compute == Compute::bf16 ? 1e-6 : 5e-7));
  }
}

TEST_CASE("conv2d on a card: windows in place and windows written out", "[cuda]") {
  if (cuda_device_count() == 0) return;  // kernels/device.cpp says why
  const auto runs = [](const char* kernel) {
    std::int64_t calls = 0;
    for (const KernelTime& k : kernel_times()) calls += k.name == kernel ? k.calls : 0;
    return calls;
  };
  struct Case {
    Shape x, w;
    int stride, padding, dilation;
    std::int64_t gathers, scatters;  // im2col and col2im in place, of 2 and 1 written out
  };
  const Case cases[] = {
      {{2, 6, 7, 16}, {24, 16, 3, 3}, 1, 1, 1, 0, 0},    {{2, 9, 8, 8}, {40, 8, 3, 3}, 2, 1, 1, 0, 1},  // no way back in place
      {{1, 13, 11, 8}, {8, 8, 2, 3}, 1, 5, 3, 0, 0},      // the padding is more than the kernel reaches
      {{1, 12, 12, 40}, {136, 40, 3, 3}, 1, 1, 1, 0, 0},  // several tiles, and depths that do not fill the last step
      {{1, 9, 9, 72}, {64, 72, 1, 1}, 1, 1, 1, 0, 0},    {{4, 40, 40, 8}, {32, 8, 3, 3}, 1, 1, 1, 0, 0},  // few tiles: several parts
      {{2, 5, 6, 48}, {37, 48, 3, 3}, 1, 1, 1, 2, 0},  // in place forward only: 37 does not fill words
      {{2, 5, 6, 12}, {32, 12, 3, 3}, 1, 1, 1, 2, 0},  // and backward only
      {{0, 5, 6, 16}, {32, 16, 3, 3}, 1, 1, 1, 0, 0},
  };
  const Device card{DeviceType::cuda, 0};
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const Case& c : cases) {
      INFO("x " << to_string(c.x) << ", w " << to_string(c.w) << ", stride " << c.stride << ", dilation " << c.dilation);
      ConvOptions o;
      o.stride = c.stride;
      o.padding = c.padding;
      o.dilation = c.dilation;
      for (const DType out : {DType::f32, dtype}) {
        o.out = out;
        set_tracing(true);
        reset_kernel_times();
        const Convolved in_place = convolved(c.x, c.w, o, false, card, dtype);
        if (out == dtype) CHECK(runs("im2col") == c.gathers);  // (gradients in f32 are written out: factors have two bytes)
        CHECK(runs("col2im") == c.scatters);
        const Convolved plain = convolved(c.x, c.w, o, true, card, dtype);
        set_tracing(false);
        // Sums in f32 of the same products in another order, dx and a y of two bytes rounded; written out, dx is a sum of rounded numbers.
        const double rounding = dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
        CHECK(relative(in_place.y.to(DType::f32), plain.y.to(DType::f32)) < (out == DType::f32 ? 1e-6 : rounding / 8));
        CHECK(relative(in_place.dw, plain.dw) < 1e-6);
        CHECK(relative(in_place.dx.to(DType::f32), plain.dx.to(DType::f32)) < rounding);
      }
    }
  }
}

TEST_CASE("matmul: few elements, great depth: the same bits for any thread count, and near the sum in double") {
  const int before = thread_count();
  const Tensor a = test::tensor_of(test::random_input({7, 10007}, "a")), b = test::tensor_of(test::random_input({10007, 50}, "b"));
  Tensor first;
  for (const int threads : {1, 2, 3, 5}) {
    set_thread_count(threads);
    const Tensor c = matmul(a, b);
    if (!first.defined()) first = c;
    CHECK(same_bits(c, first));
  }
  set_thread_count(before);
  for (const std::int64_t row : {0, 6}) {
    for (const std::int64_t col : {0, 17, 49}) {
      double sum = 0.0, size = 0.0;
      for (std::int64_t k = 0; k < 10007; ++k) {
        const double term = static_cast<double>(a.data<float>()[row * 10007 + k]) * static_cast<double>(b.data<float>()[k * 50 + col]);
        sum += term;
        size += std::abs(term);
      }
      CHECK(std::abs(static_cast<double>(first.data<float>()[row * 50 + col]) - sum) < 1e-6 * size);
    }
  }
}

}  // namespace
}  // namespace twinlens
