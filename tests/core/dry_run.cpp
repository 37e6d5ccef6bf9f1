// A dry run takes what the real one takes, touches nothing, and leaves nothing behind.

#include "twinlens/kernels/dry_run.h"

#include <catch2/catch.hpp>
#include <thread>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/matmul.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

// A layer, a norm and a loss: products with scratch, rows of statistics, views, gradients.
void work(std::int64_t rows, const Tensor& w, const Tensor& gamma) {
  const Tensor x = full({rows, 96}, 0.5), h = layer_norm(matmul(x, w), gamma, Tensor{}, {});
  backward(mean(mul(softmax(h.slice(1, 0, 50)), h.slice(1, 50, 100))));
}

TEST_CASE("a dry run counts the bytes of the real one, and touches nothing", "[memory]") {
  Tensor w = full({96, 100}, 0.01), gamma = full({100}, 1.0);
  w.set_requires_grad(true);
  gamma.set_requires_grad(true);
  w.set_grad(full({96, 100}, 7.0));
  gamma.set_grad(full({100}, 7.0));
  for (const std::int64_t rows : {1, 33, 5000}) {
    std::size_t dry_peak = 0;
    const MemoryReport before = memory_report(kCpu);
    {
      const DryRun dry;
      work(rows, w, gamma);
      dry_peak = dry.peak_bytes(kCpu);
      CHECK(dry.bytes(kCpu) == 0);
      CHECK(memory_report(kCpu).bytes == before.bytes);
      // Other threads go on with their work.
      float other = 0.0F;
      std::thread([&] { other = full({1}, 3.0).item(); }).join();
      CHECK(other == 3.0F);
    }
    CHECK(memory_report(kCpu).bytes == before.bytes);
    CHECK(w.grad().to_vector() == std::vector<float>(9600, 7.0F));
    reset_peak_memory(kCpu);
    work(rows, w, gamma);
    INFO(rows << " rows");
    CHECK(dry_peak == memory_report(kCpu).peak_bytes - before.bytes);
    w.set_grad(full({96, 100}, 7.0));
    gamma.set_grad(full({100}, 7.0));
  }
}

TEST_CASE("a dry run goes through what no machine could hold, and says what it cannot", "[memory]") {
  const DryRun dry;
  {
    const Tensor large = zeros({std::int64_t{1} << 33}, DType::u8), wide = large.to(DType::f32);
    CHECK(dry.bytes(kCpu) >= (std::size_t{5} << 33));
  }
  CHECK_THROWS_WITH(empty({std::int64_t{1} << 43}), Catch::Contains("out of memory") && Catch::Contains("dry run"));
}

TEST_CASE("a card need not be there for a dry run of its work", "[memory]") {
  const Device card{DeviceType::cuda, 0};
  const DryRun dry;
  {
    const Tensor x = full({1024, 128}, 0.5).to(card), w = full({128, 512}, 0.5).to(card);
    CHECK(dry.bytes(card) == 1024 * 128 * 4 + 128 * 512 * 4);
    const Tensor y = matmul(x, w, {.compute = Compute::bf16});
    synchronize(current_stream(card));
    CHECK(y.device() == card);
    // Beside the result both operands in bf16, and the workspace.
    CHECK(dry.bytes(card) == 1024 * 128 * 4 + 128 * 512 * 4 + 1024 * 512 * 4);
    CHECK(dry.peak_bytes(card) - dry.bytes(card) == 1024 * 128 * 2 + 128 * 512 * 2 + kMatmulWorkspace);
  }
  CHECK(dry.bytes(card) == 0);
}

TEST_CASE("batch_norm refuses tensors of several devices", "[memory]") {
  const DryRun dry;
  const Tensor x = full({8, 4}, 0.5), gamma = full({4}, 1.0), beta = full({4}, 0.0);
  Tensor mean = full({4}, 0.0), variance = full({4}, 1.0).to(Device{DeviceType::cuda, 0});
  CHECK_THROWS_AS(batch_norm(x, gamma, beta, mean, variance, {}), DeviceError);
}

TEST_CASE("a report counts what was asked for, whichever block serves it", "[memory]") {
  release_cached_memory(kCpu);
  const MemoryReport before = memory_report(kCpu);
  empty({1'200'000}, DType::u8);
  const std::size_t kept = memory_report(kCpu).cached_bytes;
  const Tensor y = empty({1'000'000}, DType::u8);
  const MemoryReport now = memory_report(kCpu);
  CHECK(now.bytes - before.bytes == 1u << 20);
  CHECK(now.bytes - before.bytes + now.cached_bytes == kept);
}

}  // namespace
}  // namespace twinlens
