#include "twinlens/core/random.h"

#include <cmath>
#include <cstddef>
#include <string>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/kernels/philox.h"
#include "twinlens/kernels/random_fill.h"

namespace twinlens {
namespace {

void fill(const char* op, Tensor& x, bool normal, double a, double b, std::uint64_t seed, std::uint64_t site) {
  check_dtype(x.dtype() == DType::f32 && x.is_dense(), op, "needs a dense f32 tensor", {{"x", x}});
  if (x.requires_grad() && grad_enabled())
    fail(ErrorKind::autograd, op, "in-place writes are not recorded, and this tensor wants a gradient; do it under NoGrad", {{"x", x}});
  run(current_stream(x.device()), RandomFill{buffer_of(x), normal, a, b, mix(seed, site)});
  x.mark_written();
}

}  // namespace

std::uint64_t site_of(std::string_view name) { return site_hash(std::string(name).c_str()); }

Tensor step_block_on(const StepBlock& block, Device device) {
  Tensor on_device = empty({static_cast<std::int64_t>(sizeof(StepBlock))}, DType::u8, device);
  copy_step_block(block, on_device);
  return on_device;
}

void copy_step_block(const StepBlock& from, const Tensor& to, bool keep_left_out) {
  check(to.dtype() == DType::u8 && to.count() == static_cast<std::int64_t>(sizeof(StepBlock)) && to.is_dense(), "copy_step_block",
        "needs a tensor from step_block_on", {{"to", to}});
  static_assert(offsetof(StepBlock, left_out) + sizeof from.left_out == sizeof from, "it is the last member");
  const std::size_t bytes = keep_left_out ? offsetof(StepBlock, left_out) : sizeof from;
  copy_bytes(current_stream(to.device()), to.raw(), to.device(), &from, kCpu, bytes);
}

void normal_(Tensor& x, double mean, double stddev, std::uint64_t seed, std::uint64_t site) {
  check(std::isfinite(mean) && std::isfinite(stddev) && stddev >= 0.0, "normal_",
        "mean = " + std::to_string(mean) + " and stddev = " + std::to_string(stddev) + " must be finite, stddev 0 or more");
  fill("normal_", x, true, mean, stddev, seed, site);
}

void uniform_(Tensor& x, double low, double high, std::uint64_t seed, std::uint64_t site) {
  check(std::isfinite(low) && std::isfinite(high) && low <= high, "uniform_",
        "low = " + std::to_string(low) + " must not be above high = " + std::to_string(high) + ", and both finite");
  fill("uniform_", x, false, low, high - low, seed, site);
}

Permutation::Permutation(std::int64_t n, std::uint64_t seed, std::uint64_t round) : n_(n), half_bits_(1), key_(mix(seed, round)) {
  check(n >= 0 && n <= std::int64_t{1} << 62, "permutation", "n = " + std::to_string(n) + " must lie in [0, 2^62]");
  while ((std::int64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
}

std::int64_t Permutation::operator()(std::int64_t i) const {
  if (i < 0 || i >= n_) fail(ErrorKind::shape, "permutation", "index " + std::to_string(i) + " is outside [0, " + std::to_string(n_) + ")");
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<std::uint64_t>(i);
  do {  // walk the cycle until inside [0, n): on average less than four steps
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t next = left ^ (mix(key_ + round, right) & mask);
      left = right;
      right = next;
    }
    value = (left << half_bits_) | right;
  } while (value >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(value);
}

}  // namespace twinlens
