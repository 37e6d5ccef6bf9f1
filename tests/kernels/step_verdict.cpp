#include "twinlens/kernels/step_verdict.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/no_card.h"

#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

struct Given {
  float loss, norm, loss_scale;
  double max_norm;
  std::int32_t skipped_before;
  std::int32_t good_steps = -1;  // of dynamic loss scaling; -1: without
};

// What torch.nn.utils.clip_grad_norm_ does, and GradScaler's finite check and update (growth 2 after 2,000 steps, backoff 0.5), with a
// scale of 1 to 2^24.
StepRecord expected(const Given& g) {
  StepRecord r{g.loss, g.norm / g.loss_scale, 1.0F, g.skipped_before, 0, g.loss_scale, {}, 2};
  const bool finite = std::isfinite(g.loss) && std::isfinite(r.norm);
  if (g.good_steps >= 0) r.next = {g.loss_scale, g.good_steps};
  if (g.skipped_before != 0) return r;
  const bool blames_scale = g.good_steps >= 0 && std::isfinite(g.loss) && !finite && g.loss_scale > 1.0F;
  r.overflow = blames_scale ? 1 : 0;
  r.left_out += r.overflow;
  r.skip = !finite && !blames_scale ? 1 : 0;
  if (blames_scale) r.next = {g.loss_scale / 2.0F, 0};
  if (finite && g.good_steps >= 0) {
    const bool grows = g.good_steps == 1999;
    r.next = {grows ? std::min(2.0F * g.loss_scale, 16777216.0F) : g.loss_scale, grows ? 0 : g.good_steps + 1};
  }
  if (finite && g.max_norm > 0.0) {
    r.clip_factor = static_cast<float>(std::min(1.0, g.max_norm / (static_cast<double>(r.norm) + 1e-6)));
  }
  return r;
}

std::vector<Given> cases() {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  return {{2.0F, 3.0F, 1.0F, 0.0, 0},
          {2.0F, 3.0F, 1.0F, 1.0, 0},
          {2.0F, 0.5F, 1.0F, 1.0, 0},
          {2.0F, 4096.0F, 1024.0F, 1.0, 0},
          {nan, 3.0F, 1.0F, 1.0, 0},
          {2.0F, inf, 1.0F, 1.0, 0},
          {-inf, nan, 1.0F, 0.0, 0},
          {2.0F, 3.0F, 1.0F, 1.0, 1},
          {2.0F, 0.0F, 512.0F, 1.0, 0},
          // With loss scaling: good ones, one that lets it grow (and one that may not), overflows, the last possible one, and what is not
          // the scale's fault.
          {2.0F, 4096.0F, 1024.0F, 1.0, 0, 7},
          {2.0F, 96.0F, 65536.0F, 1.0, 0, 1999},
          {2.0F, 96.0F, 16777216.0F, 1.0, 0, 1999},
          {2.0F, inf, 65536.0F, 1.0, 0, 30},
          {2.0F, nan, 2.0F, 1.0, 0, 0},
          {2.0F, inf, 1.0F, 1.0, 0, 3},
          {nan, nan, 65536.0F, 1.0, 0, 3},
          {2.0F, 3.0F, 1024.0F, 1.0, 1, 5},
          {2.0F, inf, 1024.0F, 1.0, 1, 5}};
}

void check_same(const StepBlock& block, const StepRecord& record, const LossScale& scaling, const Given& g) {
  const StepRecord want = expected(g);
  INFO("loss " << g.loss << " norm " << g.norm << " scale " << g.loss_scale << " max " << g.max_norm << " before " << g.skipped_before);
  CHECK(block.skip == std::max(want.skip, want.overflow));
  CHECK(record.skip == want.skip);
  CHECK(record.overflow == want.overflow);
  CHECK(block.clip_factor == want.clip_factor);
  CHECK(record.clip_factor == want.clip_factor);
  CHECK(record.loss_scale == g.loss_scale);
  CHECK(record.left_out == want.left_out);
  CHECK(block.left_out == want.left_out);
  if (g.good_steps >= 0) {
    CHECK(record.next.scale == want.next.scale);
    CHECK(record.next.good_steps == want.next.good_steps);
    CHECK(scaling.scale == want.next.scale);
    CHECK(scaling.good_steps == want.next.good_steps);
  }
  CHECK((record.loss == g.loss || std::isnan(g.loss)));
  CHECK((record.norm == want.norm || std::isnan(g.norm)));
  // The rest of the block is the host's.
  CHECK(block.step == 7);
  CHECK(block.learning_rate == 0.25F);
  CHECK(block.loss_scale == g.loss_scale);
}

}  // namespace

TEST_CASE("the loss scale doubles after 2000 good steps and halves at an overflow", "[step]") {
  LossScale s;
  for (int i = 0; i < 1999; ++i) s.count(true);
  CHECK(s.scale == 65536.0F);
  s.count(true);
  CHECK(s.scale == 131072.0F);
  s.count(false);
  CHECK(s.scale == 65536.0F);
  CHECK(s.good_steps == 0);
  for (int i = 0; i < 40; ++i) s.count(false);
  CHECK(s.scale == 1.0F);
  CHECK_FALSE(s.may_halve());
  for (int i = 0; i < 2000 * 40; ++i) s.count(true);
  CHECK(s.scale == 16777216.0F);
}

TEST_CASE("the verdict on a step is that of the host: clip factor, skip, and skipping goes on", "[step]") {
  for (const Given& g : cases()) {
    StepBlock block{1, 7, 0.25F, g.loss_scale, 0.5F, 0, 2};
    StepRecord record;
    record.skip = g.skipped_before;
    LossScale scaling{g.loss_scale, g.good_steps};
    run(current_stream(kCpu), StepVerdict{&g.loss, &g.norm, g.max_norm, &block, &record, g.good_steps >= 0 ? &scaling : nullptr});
    check_same(block, record, scaling, g);
  }
}

TEST_CASE("the card's verdict on a step is the host's", "[cuda]") {
  if (test::no_card()) return;
  const Device card{DeviceType::cuda, 0};
  Stream& stream = current_stream(card);
  struct All {
    StepBlock block;
    StepRecord record;
    float loss, norm;
    LossScale scaling;
  };
  for (const Given& g : cases()) {
    All all{{1, 7, 0.25F, g.loss_scale, 0.5F, 0, 2}, {}, g.loss, g.norm, {g.loss_scale, g.good_steps}};
    all.record.skip = g.skipped_before;
    const Memory memory = allocate(stream, sizeof all);
    auto* there = static_cast<All*>(memory.data());
    copy_bytes(stream, there, card, &all, kCpu, sizeof all);
    run(stream,
        StepVerdict{&there->loss, &there->norm, g.max_norm, &there->block, &there->record, g.good_steps >= 0 ? &there->scaling : nullptr});
    copy_bytes(stream, &all, kCpu, there, card, sizeof all);
    check_same(all.block, all.record, all.scaling, g);
  }
}

}  // namespace twinlens
