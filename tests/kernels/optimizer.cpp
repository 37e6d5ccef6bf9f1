// AdamW and SGD over flat blocks against the textbook in double precision: several steps, segments with gaps, every instruction set, and
// the card where there is one.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/kernels/every_set.h"

#include "twinlens/kernels/adamw.h"
#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

constexpr float kUntouched = 77.0F;
constexpr int kSteps = 4;

// Odd sizes, gaps between segments, one longer than a thread's share.
std::vector<OptimizerSegment> segments() {
  std::vector<OptimizerSegment> s;
  s.push_back({0, 1, 1.0F, 1.0F, 0, 0});
  s.push_back({64, 37, 0.5F, 0.0F, 0, 0});
  s.push_back({128, 40'003, 2.0F, 1.0F, 0, 0});
  s.push_back({40'192, 19, 1.0F, 1.0F, 1, 0});  // frozen
  s.push_back({40'256, 0, 1.0F, 1.0F, 0, 0});
  s.push_back({40'256, 64, 1.0F, 1.0F, 0, 0});
  return s;
}
constexpr std::size_t kCount = 40'336;

struct State {
  std::vector<float> value = std::vector<float>(kCount, kUntouched), gradient = value, moment1 = value, moment2 = value;
  std::vector<bf16> shadow = std::vector<bf16>(kCount, bf16{0});

  State() {
    for (const OptimizerSegment& s : segments()) {
      for (std::int64_t i = s.offset; i < s.offset + s.size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        value[at] = std::sin(static_cast<float>(i * i % 1009));
        moment1[at] = moment2[at] = 0.0F;
      }
    }
  }
  void draw_gradient(int step) {
    for (std::size_t i = 0; i < kCount; ++i) {
      gradient[i] = std::cos(static_cast<float>((i * 7 + static_cast<std::size_t>(step) * 13) % 2003)) * (i % 5 == 0 ? 1e-3F : 1.0F);
    }
  }
};

// The step-th update. From the second on three steps before it have been left out, which do not count.
StepBlock block_of(int step) {
  StepBlock b;
  b.left_out = step < 1 ? 0 : 3;
  b.step = static_cast<std::uint64_t>(step + b.left_out);
  b.learning_rate = 1e-2F * static_cast<float>(step + 1);
  b.loss_scale = 8.0F;
  b.clip_factor = 0.625F;
  return b;
}

struct Rule {
  std::string name;
  std::function<void(State&, const StepBlock&, Device)> run;
  // One element: value, moments, gradient after scaling, learning rate, decay flag, t from 1.
  std::function<void(double& w, double& m, double& v, double g, double lr, double decay, int t)> reference;
};

// The arguments of one step in the memory of a device: where they are on the CPU, copies on a card. Copies come back at the end.
class Placed {
 public:
  Placed(State& s, const StepBlock& block, Device device)
      : stream_(current_stream(device)),
        segments(placed(table_.data(), table_.size(), false)),
        value(placed(s.value.data(), kCount, true)),
        gradient(placed(s.gradient.data(), kCount, true)),
        moment1(placed(s.moment1.data(), kCount, true)),
        moment2(placed(s.moment2.data(), kCount, true)),
        shadow(placed(s.shadow.data(), kCount, true)),
        step(placed(&block, 1, false)) {}

  template <class Args>
  void run_step(Args& a) {
    a.segments = segments;
    a.segment_count = static_cast<std::int64_t>(table_.size());
    a.extent = static_cast<std::int64_t>(kCount);
    a.value = value;
    a.gradient = gradient;
    a.shadow = shadow;
    a.step = step;
    run(stream_, a);
    for (const Copy& c : copies_) {
      if (c.back != nullptr) copy_bytes(stream_, c.back, kCpu, c.memory.data(), stream_.device(), c.memory.bytes());
    }
  }

 private:
  struct Copy {
    Memory memory;
    void* back;
  };
  template <class T>
  T* placed(T* host, std::size_t count, bool comes_back) {
    if (stream_.device().is_cpu()) return host;
    Memory memory = allocate(stream_, count * sizeof(T));
    copy_bytes(stream_, memory.data(), stream_.device(), host, kCpu, count * sizeof(T));
    auto* there = static_cast<T*>(memory.data());
    void* back = nullptr;
    if constexpr (!std::is_const_v<T>) back = comes_back ? host : nullptr;
    copies_.push_back({std::move(memory), back});
    return there;
  }

  Stream& stream_;
  std::vector<OptimizerSegment> table_ = twinlens::segments();
  std::vector<Copy> copies_;

 public:
  OptimizerSegment* segments;
  float *value, *gradient, *moment1, *moment2;
  bf16* shadow;
  const StepBlock* step;
};

Rule adamw() {
  constexpr double beta1 = 0.9, beta2 = 0.98, eps = 1e-6, weight_decay = 0.2;
  Rule r;
  r.name = "adamw";
  r.run = [](State& s, const StepBlock& block, Device device) {
    Placed placed(s, block, device);
    AdamW a{};
    a.moment1 = placed.moment1;
    a.moment2 = placed.moment2;
    a.beta1 = beta1;
    a.beta2 = beta2;
    a.eps = eps;
    a.weight_decay = weight_decay;
    placed.run_step(a);
  };
  r.reference = [](double& w, double& m, double& v, double g, double lr, double decay, int t) {
    w -= lr * weight_decay * decay * w;
    m = beta1 * m + (1.0 - beta1) * g;
    v = beta2 * v + (1.0 - beta2) * g * g;
    w -= lr / (1.0 - std::pow(beta1, t)) * m / (std::sqrt(v) / std::sqrt(1.0 - std::pow(beta2, t)) + eps);
  };
  return r;
}

Rule sgd(bool nesterov) {
  constexpr double momentum = 0.9, weight_decay = 0.05;
  Rule r;
  r.name = nesterov ? "sgd, nesterov" : "sgd";
  r.run = [nesterov](State& s, const StepBlock& block, Device device) {
    Placed placed(s, block, device);
    SgdMomentum a{};
    a.moment = placed.moment1;
    a.momentum = momentum;
    a.weight_decay = weight_decay;
    a.nesterov = nesterov;
    placed.run_step(a);
  };
  r.reference = [nesterov](double& w, double& m, double&, double g, double lr, double decay, int) {
    g += weight_decay * decay * w;
    m = momentum * m + g;
    w -= lr * (nesterov ? g + momentum * m : m);
  };
  return r;
}

State after_steps(const Rule& rule, Device device = kCpu) {
  State s;
  for (int step = 0; step < kSteps; ++step) {
    s.draw_gradient(step);
    rule.run(s, block_of(step), device);
  }
  return s;
}

// Distance in the 2-norm over a segment, relative to how far the segment moved.
double error_of(const State& got, const Rule& rule, const OptimizerSegment& segment) {
  double difference2 = 0.0, moved2 = 0.0;
  State start;
  std::vector<std::vector<float>> of_step;
  for (int step = 0; step < kSteps; ++step) {
    start.draw_gradient(step);
    of_step.push_back(start.gradient);
  }
  for (std::int64_t i = segment.offset; i < segment.offset + segment.size; ++i) {
    const auto at = static_cast<std::size_t>(i);
    double w = static_cast<double>(start.value[at]), m = 0.0, v = 0.0;
    for (int step = 0; step < kSteps; ++step) {
      const StepBlock b = block_of(step);
      const double g = static_cast<double>(of_step[static_cast<std::size_t>(step)][at]) * static_cast<double>(b.clip_factor) /
                       static_cast<double>(b.loss_scale);
      const double lr = static_cast<double>(b.learning_rate) * static_cast<double>(segment.lr_factor);
      rule.reference(w, m, v, g, lr, static_cast<double>(segment.decay), step + 1);
    }
    const double moved = w - static_cast<double>(start.value[at]), off = w - static_cast<double>(got.value[at]);
    difference2 += off * off;
    moved2 += moved * moved;
  }
  return std::sqrt(difference2 / moved2);
}

std::uint16_t nearest_bf16(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

void check_state(const Rule& rule, const State& got) {
  std::vector<bool> inside(kCount, false);
  for (const OptimizerSegment& segment : segments()) {
    if (segment.frozen != 0 || segment.size == 0) continue;
    CHECK(error_of(got, rule, segment) < 2e-5);  // values near 1 in f32 that moved by a few hundredths
    for (std::int64_t i = segment.offset; i < segment.offset + segment.size; ++i) inside[static_cast<std::size_t>(i)] = true;
  }
  const State start;
  bool shadow_is_rounded = true, rest_untouched = true;
  for (std::size_t i = 0; i < kCount; ++i) {
    if (inside[i]) {
      shadow_is_rounded = shadow_is_rounded && got.shadow[i].bits == nearest_bf16(got.value[i]);
    } else {
      rest_untouched = rest_untouched && got.value[i] == start.value[i] && got.moment1[i] == start.moment1[i] &&
                       got.moment2[i] == start.moment2[i] && got.shadow[i].bits == 0;
    }
  }
  CHECK(shadow_is_rounded);
  CHECK(rest_untouched);
}

void check_rule(const Rule& rule) {
  INFO(rule.name);
  on_every_set([&] { check_state(rule, after_steps(rule)); });
}

}  // namespace

TEST_CASE("optimizers follow the textbook on every instruction set and touch nothing else", "[optimizer]") {
  for (const Rule& rule : {adamw(), sgd(false), sgd(true)}) check_rule(rule);
}

TEST_CASE("optimizers: equal bits from run to run and for 1 and 2 threads", "[optimizer]") {
  const int threads = thread_count();
  for (const Rule& rule : {adamw(), sgd(false), sgd(true)}) {
    INFO(rule.name);
    set_thread_count(2);
    const State first = after_steps(rule);
    CHECK(after_steps(rule).value == first.value);
    set_thread_count(1);
    const State again = after_steps(rule);
    CHECK(again.value == first.value);
    CHECK(again.moment1 == first.moment1);
    CHECK(again.moment2 == first.moment2);
  }
  set_thread_count(threads);
}

TEST_CASE("optimizers: a skipped step leaves everything as it is", "[optimizer]") {
  for (const Rule& rule : {adamw(), sgd(true)}) {
    INFO(rule.name);
    State s;
    s.draw_gradient(0);
    StepBlock block = block_of(0);
    block.skip = 1;
    rule.run(s, block, kCpu);
    const State start;
    CHECK(s.value == start.value);
    CHECK(s.moment1 == start.moment1);
    CHECK(s.moment2 == start.moment2);
  }
}

TEST_CASE("optimizers follow the textbook on a card, with equal bits from run to run", "[optimizer][cuda]") {
  if (cuda_device_count() == 0) return;  // device.cpp says why
  const Device cuda{DeviceType::cuda, 0};
  for (const Rule& rule : {adamw(), sgd(false), sgd(true)}) {
    INFO(rule.name);
    const State got = after_steps(rule, cuda);
    check_state(rule, got);
    CHECK(after_steps(rule, cuda).value == got.value);
    State skipped;
    skipped.draw_gradient(0);
    StepBlock block = block_of(0);
    block.skip = 1;
    rule.run(skipped, block, cuda);
    CHECK(skipped.value == State().value);
  }
}

}  // namespace twinlens
