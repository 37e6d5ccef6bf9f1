#include "twinlens/core/tensor.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/kernels/every_set.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/random.h"
#include "twinlens/core/sequence_offsets.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

TEST_CASE("views share elements, copies do not") {
  const Tensor x = from_vector(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3});
  CHECK(x.transpose(0, 1).to_vector() == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(x.slice(1, 1, 3).to_vector() == std::vector<float>{1, 2, 4, 5});
  CHECK(x.select(0, 1).shape() == Shape{3});
  CHECK(x.reshape({3, -1}).shape() == Shape{3, 2});
  CHECK(x.unsqueeze(0).expand({2, 2, 3}).to_vector() == std::vector<float>{0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5});
  const Tensor copy = x.clone();
  x.slice(1, 0, 1).fill_(9);
  CHECK(x.to_vector() == std::vector<float>{9, 1, 2, 9, 4, 5});
  CHECK(copy.to_vector() == std::vector<float>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("shapes that no tensor has are refused") {
  const Tensor x = from_vector(std::vector<float>{0, 1, 2, 3, 4, 5}, {2, 3});
  const std::int64_t large = std::int64_t{1} << 32;
  CHECK_THROWS_AS(empty({large, large}), ShapeError);
  CHECK_THROWS_AS(empty({large << 30}), ShapeError);  // 2^62 elements, 2^64 bytes
  CHECK_THROWS_AS(zeros({large / 2, large / 2, 4}), ShapeError);
  CHECK_THROWS_AS(full({1}, 1.0).expand({large * 2, large / 2}).count(), ShapeError);
  CHECK_THROWS_AS(x.reshape({-1, -1}), ShapeError);
  CHECK_THROWS_AS(x.reshape({-2, -3}), ShapeError);
  CHECK_THROWS_AS(x.reshape({4, -1}), ShapeError);
  CHECK_THROWS_AS(zeros({0, 3}).reshape({0, -1}), ShapeError);
  CHECK(zeros({0, 3}).reshape({-1, 3}).shape() == Shape{0, 3});
  CHECK_THROWS_AS(zeros({1}).expand({-3}), ShapeError);
  CHECK_THROWS_AS(arange(-1), ShapeError);
  CHECK(zeros({4, 0}).clone().shape() == Shape{4, 0});
  const Tensor nothing = zeros({0, std::int64_t{1} << 40, std::int64_t{1} << 40});  // strides beyond 64 bits
  CHECK((nothing.count() == 0 && nothing.is_dense()));
  CHECK_THROWS_AS(SequenceOffsets({}, zeros({0}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(parse_device("cuda:99999999999"), ConfigError);
}

TEST_CASE("an expanded tensor is filled, but takes no values one by one") {
  const Tensor x = zeros({2, 1});
  Tensor wide = x.expand({2, 3});
  wide.fill_(7.0);
  CHECK(x.to_vector() == std::vector<float>{7, 7});
  CHECK_THROWS_AS(wide.copy_(zeros({2, 3})), ShapeError);
}

TEST_CASE("a copy between overlapping views moves what was there before") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i64}) {
    const Tensor x = arange(6, dtype);
    x.slice(0, 1, 6).copy_(x.slice(0, 0, 5));
    CHECK(x.to_ints() == std::vector<std::int64_t>{0, 0, 1, 2, 3, 4});
    x.slice(0, 0, 5).copy_(x.slice(0, 1, 6));
    CHECK(x.to_ints() == std::vector<std::int64_t>{0, 1, 2, 3, 4, 4});
    Tensor square = arange(9, dtype).reshape({3, 3});
    square.copy_(square.transpose(0, 1));
    CHECK(square.to_ints() == std::vector<std::int64_t>{0, 3, 6, 1, 4, 7, 2, 5, 8});
    square.copy_(square);
    CHECK(square.to_ints() == std::vector<std::int64_t>{0, 3, 6, 1, 4, 7, 2, 5, 8});
    square.copy_(square.slice(0, 1, 2).expand({3, 3}));
    CHECK(square.to_ints() == std::vector<std::int64_t>{1, 4, 7, 1, 4, 7, 1, 4, 7});
  }
}

TEST_CASE("a fill with -0 keeps the sign") {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const float v : full({3}, -0.0, dtype).to_vector()) CHECK((v == 0.0F && std::signbit(v)));
    for (const float v : full({3}, 0.0, dtype).to_vector()) CHECK((v == 0.0F && !std::signbit(v)));
  }
  CHECK(full({2}, -0.0, DType::i64).to_ints() == std::vector<std::int64_t>{0, 0});
}

TEST_CASE("dtypes convert with round to nearest even") {
  const Tensor x = from_vector(std::vector<float>{1.0F, 1.00390625F, 1.01171875F, -3.5F, 1e-40F, 70000.0F}, {6});
  CHECK(x.to(DType::bf16).to_vector() == std::vector<float>{1.0F, 1.0F, 1.015625F, -3.5F, x.to(DType::bf16).to_vector()[4], 70144.0F});
  const std::vector<float> half = x.to(DType::f16).to_vector();
  CHECK(half[1] == 1.00390625F);
  CHECK(half[4] == 0.0F);
  CHECK(std::isinf(half[5]));
  CHECK(from_vector(std::vector<float>{5.96046448e-8F, 6.1e-5F}, {2}).to(DType::f16).to_vector()[0] == 5.96046448e-8F);
  CHECK(x.to(DType::i64).to_ints() == std::vector<std::int64_t>{1, 1, 1, -3, 0, 70000});
  CHECK(x.to(DType::boolean).to_ints() == std::vector<std::int64_t>{1, 1, 1, 1, 1, 1});
}

TEST_CASE("what does not fit an integer becomes the nearest that does, and NaN becomes 0") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = from_vector(std::vector<float>{-2, -0.5F, 255.5F, 256, -3e9F, 3e9F, -1e19F, 1e19F, infinity, std::nanf("")}, {10});
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min(), kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t kLeast32 = std::numeric_limits<std::int32_t>::min(), kMost32 = std::numeric_limits<std::int32_t>::max();
  on_every_set([&] {
    CHECK(x.to(DType::u8).to_ints() == std::vector<std::int64_t>{0, 0, 255, 255, 0, 255, 0, 255, 255, 0});
    CHECK(x.to(DType::i32).to_ints() == std::vector<std::int64_t>{-2, 0, 255, 256, kLeast32, kMost32, kLeast32, kMost32, kMost32, 0});
    CHECK(x.to(DType::i64).to_ints() == std::vector<std::int64_t>{-2, 0, 255, 256, -3'000'000'000, 3'000'000'000, kLeast, kMost, kMost, 0});
    CHECK(full({1}, -2, DType::u8).to_ints()[0] == 0);
    CHECK(full({1}, std::nan(""), DType::i32).to_ints()[0] == 0);
    CHECK(full({1}, 1e30, DType::i64).to_ints()[0] == kMost);
  });
}

// The nearer of the two bf16 around x, the one with an even last bit halfway between; 2^128 stands for infinity.
float nearest_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t low = bits & 0xFFFF0000U, high = low + 0x10000U;
  const auto size = [](std::uint32_t word) {
    const std::uint32_t magnitude = word & 0x7FFFFFFFU;
    return magnitude == 0x7F800000U ? std::ldexp(1.0, 128) : static_cast<double>(std::bit_cast<float>(magnitude));
  };
  const double below = size(bits) - size(low), above = size(high) - size(bits);
  const bool up = above < below || (above == below && (low & 0x10000U) != 0);
  return std::bit_cast<float>(up ? high : low);
}

TEST_CASE("every set rounds to bf16 alike: to the nearest, halves to even, infinities and NaN stay what they are") {
  std::vector<float> numbers;
  for (std::uint64_t bits = 0; bits < 0x1'0000'0000ULL; bits += 65521) {
    for (const std::uint32_t low : {0U, 1U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU})
      numbers.push_back(std::bit_cast<float>((static_cast<std::uint32_t>(bits) & 0xFFFF0000U) | low));
  }
  const auto n = static_cast<std::int64_t>(numbers.size());
  const Tensor x = from_vector(numbers, {n});
  on_every_set([&] {
    const std::vector<float> rounded = x.to(DType::bf16).to_vector();
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (std::isnan(numbers[i])) {
        wrong += std::isnan(rounded[i]) ? 0 : 1;
      } else {
        const float want = std::isinf(numbers[i]) ? numbers[i] : nearest_bf16(numbers[i]);
        wrong += std::bit_cast<std::uint32_t>(rounded[i]) == std::bit_cast<std::uint32_t>(want) ? 0 : 1;
      }
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE("there is one CPU") {
  CHECK_THROWS_AS(empty({1}, DType::f32, {DeviceType::cpu, 3}), DeviceError);
  CHECK_THROWS_WITH(zeros({1}).to({DeviceType::cpu, 3}), Catch::Contains("there is one CPU, and its index is 3"));
}

TEST_CASE("errors name the shapes") {
  CHECK_THROWS_AS(argmax(zeros({2}, DType::u8)), DTypeError);
  CHECK_THROWS_WITH(argmax(zeros({2}, DType::u8)), Catch::StartsWith("argmax: must be f32, bf16 or i64; x=[2] u8 cpu"));
  const Tensor x = zeros({2, 3});
  CHECK_THROWS_WITH(x.reshape({4, 2}), Catch::Contains("[4,2]") && Catch::Contains("[2,3] f32 cpu"));
  CHECK_THROWS_WITH(x.reshape({4, -1}), Catch::Contains("[4,-1]"));
  CHECK_THROWS_WITH(zeros({1, 2, 3, 4, 5, 6, 7, 8, 9}),
                    Catch::Contains("9 dimensions were given; shape [1,2,3,4,5,6,7,8,9]; a tensor has at most 6"));
  CHECK_THROWS_WITH(zeros({1, 1, 1, 1, 1, 2}).expand({3, 1, 1, 1, 1, 1, 2}), Catch::Contains("7 dimensions"));
  Shape full_of = {1, 2, 3, 4, 5, 6};
  CHECK_THROWS_WITH(full_of.push_back(7), Catch::Contains("of size 7") && Catch::Contains("[1,2,3,4,5,6]"));
  CHECK_THROWS_AS(x.slice(1, 2, 5), ShapeError);
  CHECK_THROWS_AS(x.data<std::int64_t>(), DTypeError);
  CHECK_THROWS_AS(Tensor{}.shape(), Error);
  CHECK_THROWS_AS(parse_device("gpu"), ConfigError);
}

TEST_CASE("a dimension that is not there is refused in the op's name") {
  const Tensor x = zeros({2, 3});
  const auto refuses = [](const std::string& op) {
    return Catch::StartsWith(op + ": dimension 2 does not exist; use one in [-2, 2); x=[2,3]");
  };
  CHECK_THROWS_WITH(x.transpose(0, 2), refuses("transpose"));
  CHECK_THROWS_WITH(x.permute({0, 2}), refuses("permute"));
  CHECK_THROWS_WITH(x.slice(2, 0, 1), refuses("slice"));
  CHECK_THROWS_WITH(x.select(2, 0), refuses("select"));
  CHECK_THROWS_WITH(x.squeeze(2), refuses("squeeze"));
  CHECK_THROWS_WITH(sum(x, {{2}, false}), refuses("sum"));
  CHECK_THROWS_WITH(mean(x, {{2}, false}), refuses("mean"));
  CHECK_THROWS_WITH(max(x, 2), refuses("max"));
  CHECK_THROWS_WITH(concat({x, x}, 2), refuses("concat"));
  CHECK_THROWS_WITH(index_select(x, 2, zeros({1}, DType::i64)), refuses("index_select"));
  CHECK_THROWS_WITH(x.select(0, 2), Catch::Contains("select: index 2 is outside [0, 2)"));
}

TEST_CASE("numbers that would leave no number, or wrap around, are refused in the op's name") {
  const double nan = std::nan("");
  const Tensor x = full({2, 3}, 1.0);
  const auto says = [](const char* text) { return Catch::StartsWith(text); };
  CHECK_THROWS_WITH(layer_norm(x, {}, {}, nan), says("layer_norm: eps = nan must be 0 or more; x=[2,3]"));
  CHECK_THROWS_WITH(layer_norm(x, {}, {}, -5.0), says("layer_norm: eps = -5"));
  CHECK_THROWS_WITH(l2_normalize(x, -1.0), says("l2_normalize: eps = -1"));
  Tensor mean = zeros({3}), variance = full({3}, 1.0);
  BatchNormOptions norm;
  norm.eps = nan;
  CHECK_THROWS_WITH(batch_norm(x, variance, mean, mean, variance, norm), says("batch_norm: eps = nan"));
  norm = BatchNormOptions{};
  norm.training = true;
  norm.momentum = 5.0;
  CHECK_THROWS_WITH(batch_norm(x, variance, mean, mean, variance, norm), says("batch_norm: momentum = 5"));
  AttentionOptions options;
  options.query_offsets = equal_offsets(1, 2);
  options.scale = nan;
  CHECK_THROWS_WITH(attention(x, x, x, options), says("attention: scale = nan must be finite"));
  Tensor y = zeros({3});
  CHECK_THROWS_WITH(normal_(y, 0.0, -1.0, 1, 1), says("normal_: mean = 0"));
  CHECK_THROWS_WITH(uniform_(y, 2.0, 1.0, 1, 1), says("uniform_: low = 2"));
  CHECK_THROWS_AS(equal_offsets(4, std::int64_t{1} << 62), ShapeError);
  CHECK_THROWS_AS(arange(std::int64_t{1} << 62), ShapeError);
  CHECK_THROWS_WITH(checkpoint({}, {x}), says("checkpoint: there is no function"));
  InfoNceOptions half;
  half.ranks.gather = [](const Tensor& own) { return own; };
  CHECK_THROWS_WITH(info_nce(x, x, scalar(0.0F), half), says("info_nce: ranks need both functions"));
}

TEST_CASE("windows that lie nowhere in a map are refused, however large their padding") {
  constexpr int kMost = std::numeric_limits<int>::max();
  const Tensor x = full({1, 4, 4, 2}, 1.0), w = full({2, 2, 3, 3}, 1.0);
  CHECK_THROWS_AS(max_pool2d(x, 2, kMost, kMost), ShapeError);
  CHECK_THROWS_WITH(max_pool2d(zeros({1, 0, 4, 2}), 2, 1, 1), Catch::Contains("the map is empty"));
  ConvOptions options;
  options.stride = options.padding = kMost;
  CHECK(conv2d(x, w, {}, options).shape() == Shape{1, 3, 3, 2});
  options.stride = 1;
  CHECK_THROWS_WITH(conv2d(x, w, {}, options), Catch::Contains("more elements than 64 bits can count"));
  options.windows_in_memory = true;
  CHECK_THROWS_WITH(conv2d(x, w, {}, options), Catch::Contains("more elements than 64 bits can count"));
  ConvTransposeOptions transposed;
  transposed.padding = kMost;
  CHECK_THROWS_WITH(conv_transpose2d(x, w, {}, transposed), Catch::Contains("the padding takes the whole picture away"));
  CHECK_THROWS_WITH(conv_transpose2d(x, zeros({2, 2, 0, 3}), {}), Catch::Contains("the kernel is empty"));
}

TEST_CASE("an absent tensor is refused in the name of what was asked of it") {
  const Tensor absent;
  const auto names = [](const std::string& op) { return Catch::StartsWith(op + ": an absent tensor was given"); };
  CHECK_THROWS_WITH(on_grad_ready(absent, {}), names("on_grad_ready"));
  CHECK_THROWS_WITH(forget_grad(absent), names("forget_grad"));
  CHECK_THROWS_WITH(settle_grad(absent), names("settle_grad"));
  CHECK_THROWS_WITH(set_recipe(absent, {}), names("set_recipe"));
  CHECK_THROWS_WITH(share_gradient(absent, zeros({1})), names("share_gradient"));
  CHECK_THROWS_WITH(share_gradient(zeros({1}), absent), names("share_gradient"));
  CHECK_THROWS_WITH(backward(absent), names("backward"));
  CHECK_THROWS_WITH(backward(zeros({1}).set_requires_grad(true), absent), names("backward"));
  const auto is_absent = Catch::Contains("an absent tensor was used");
  CHECK_THROWS_WITH(absent.set_grad(Tensor{}), is_absent);
  CHECK_THROWS_WITH(absent.mark_written(), is_absent);
  CHECK_THROWS_WITH(absent.detach(), is_absent);
  CHECK_THROWS_WITH(apart(absent), is_absent);
  CHECK_THROWS_WITH(Tensor{}.set_requires_grad(true), is_absent);
  CHECK_THROWS_WITH(checkpoint([](const std::vector<Tensor>&) { return Tensor{}; }, {}), is_absent);
  const Scope scope("text.ln_final");
  CHECK_THROWS_WITH(linear(zeros({2, 2}), absent, absent), is_absent && Catch::EndsWith("in text.ln_final"));
}

TEST_CASE("memory is reported by scope") {
  reset_peak_memory(kCpu);
  {
    const Scope scope("report_test");
    const Tensor x = zeros({1 << 20});
    const MemoryReport report = memory_report(kCpu);
    const auto tag = std::find_if(report.tags.begin(), report.tags.end(), [](const MemoryTag& t) { return t.name == "report_test"; });
    REQUIRE(tag != report.tags.end());
    CHECK(tag->bytes >= (4U << 20));
    CHECK(tag->bytes_at_peak >= (4U << 20));
  }
  CHECK(memory_report(kCpu).peak_bytes >= (4U << 20));
}

TEST_CASE("a leaf that is frozen between forward and backward gets no gradient, whatever block it has") {
  const Tensor table = full({4, 3}, 1.0), weight = full({2, 3}, 1.0);
  for (Tensor leaf : {table, weight}) {
    leaf.set_requires_grad(true);
    leaf.set_grad(zeros(leaf.shape()));
  }
  const Tensor y = sum(linear(embedding(table, from_vector(std::vector<std::int64_t>{0, 1}, {2})), weight, {}));
  for (Tensor leaf : {table, weight}) leaf.set_requires_grad(false);
  backward(y);
  CHECK(table.grad().to_vector() == std::vector<float>(12, 0.0F));
  CHECK(weight.grad().to_vector() == std::vector<float>(6, 0.0F));
}

}  // namespace
}  // namespace twinlens
