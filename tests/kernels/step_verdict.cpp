#include "twinlens/kernels/step_verdict.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

struct Given {
  float loss, norm, loss_scale;
  double max_norm;
  std::int32_t skipped_before;
};

struct Result {
  StepBlock block;
  StepRecord record;
};

// What torch.nn.utils.clip_grad_norm_ does, and GradScaler's finite check.
Result expected(const Given& g) {
  Result r;
  r.record = {g.loss, g.norm / g.loss_scale, 1.0F, g.skipped_before};
  if (!std::isfinite(g.loss) || !std::isfinite(r.record.norm)) r.record.skip = 1;
  if (r.record.skip == 0 && g.max_norm > 0.0) {
    r.record.clip_factor = static_cast<float>(std::min(1.0, g.max_norm / (static_cast<double>(r.record.norm) + 1e-6)));
  }
  return r;
}

std::vector<Given> cases() {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return {{2.0F, 3.0F, 1.0F, 0.0, 0},       {2.0F, 3.0F, 1.0F, 1.0, 0}, {2.0F, 0.5F, 1.0F, 1.0, 0},
          {2.0F, 4096.0F, 1024.0F, 1.0, 0}, {nan, 3.0F, 1.0F, 1.0, 0},  {2.0F, inf, 1.0F, 1.0, 0},
          {-inf, nan, 1.0F, 0.0, 0},        {2.0F, 3.0F, 1.0F, 1.0, 1}, {2.0F, 0.0F, 512.0F, 1.0, 0}};
}

void check_same(const StepBlock& block, const StepRecord& record, const Given& g) {
  const Result want = expected(g);
  INFO("loss " << g.loss << " norm " << g.norm << " scale " << g.loss_scale << " max " << g.max_norm << " before " << g.skipped_before);
  CHECK(block.skip == want.record.skip);
  CHECK(record.skip == want.record.skip);
  CHECK(block.clip_factor == want.record.clip_factor);
  CHECK(record.clip_factor == want.record.clip_factor);
  CHECK((record.loss == g.loss || std::isnan(g.loss)));
  CHECK((record.norm == want.record.norm || std::isnan(g.norm)));
  // The rest of the block is the host's.
  CHECK(block.step == 7);
  CHECK(block.learning_rate == 0.25F);
  CHECK(block.loss_scale == g.loss_scale);
}

}  // namespace

TEST_CASE("the verdict on a step is that of the host: clip factor, skip, and skipping goes on", "[step]") {
  for (const Given& g : cases()) {
    StepBlock block{1, 7, 0.25F, g.loss_scale, 0.5F, 0};
    StepRecord record;
    record.skip = g.skipped_before;
    run(current_stream(kCpu), StepVerdict{&g.loss, &g.norm, g.max_norm, &block, &record});
    check_same(block, record, g);
  }
}

TEST_CASE("the card's verdict on a step is the host's", "[cuda]") {
  if (cuda_device_count() == 0) {
    WARN("skipped: " << cuda_unavailable_reason());
    return;
  }
  const Device card{DeviceType::cuda, 0};
  Stream& stream = current_stream(card);
  struct All {
    StepBlock block;
    StepRecord record;
    float loss, norm;
  };
  for (const Given& g : cases()) {
    All all{{1, 7, 0.25F, g.loss_scale, 0.5F, 0}, {0.0F, 0.0F, 1.0F, g.skipped_before}, g.loss, g.norm};
    const Memory memory = allocate(stream, sizeof all);
    auto* there = static_cast<All*>(memory.data());
    copy_bytes(stream, there, card, &all, kCpu, sizeof all);
    run(stream, StepVerdict{&there->loss, &there->norm, g.max_norm, &there->block, &there->record});
    copy_bytes(stream, &all, kCpu, there, card, sizeof all);
    check_same(all.block, all.record, g);
  }
}

}  // namespace twinlens
