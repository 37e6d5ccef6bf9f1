#pragma once
// Random numbers as pure functions of (seed, step, site, sample id, position): see twinlens/kernels/philox.h. Nothing here has state.

#include <cstdint>
#include <string_view>

#include "twinlens/core/tensor.h"
#include "twinlens/kernels/step_block.h"

namespace twinlens {

// Where random numbers are drawn. `block` supplies seed and step and must outlive the tape; kernels read it, so for tensors on a card it is
// memory of that card (step_block_on). `site` is the hash of a name that is unique in the model ("visual.patch_dropout").
struct RandomKey {
  const StepBlock* block = nullptr;
  std::uint64_t site = 0;
};

std::uint64_t site_of(std::string_view name);

// A step block in the memory of a device: raw() of the result is a StepBlock*. copy_step_block changes it from the host, in stream order;
// with `keep_left_out` the count of steps left out stays, where a card keeps it itself (kernels/step_verdict.h).
Tensor step_block_on(const StepBlock& block, Device device);
void copy_step_block(const StepBlock& from, const Tensor& to, bool keep_left_out = false);

// Which sample and which position in it each row of a tensor belongs to, so that a row draws the same numbers in any batch, chunk or
// packing. Absent: the row's index, and 0.
struct RowIds {
  Tensor sample;    // (rows) i64, global sample id
  Tensor position;  // (rows) i64, e.g. the token's place in its caption
};

// Fills x (f32, dense) with normal numbers of the given mean and standard deviation, a pure function of (seed, site).
void normal_(Tensor& x, double mean, double stddev, std::uint64_t seed, std::uint64_t site);
// The same, uniform in [low, high).
void uniform_(Tensor& x, double low, double high, std::uint64_t seed, std::uint64_t site);
// A permutation of [0, n) that is a pure function of (seed, round): no state, no table. permuted(i), i in [0, n) or a ShapeError, by a
// cycle-walking Feistel network.
class Permutation {
 public:
  Permutation(std::int64_t n, std::uint64_t seed, std::uint64_t round);
  std::int64_t operator()(std::int64_t i) const;

 private:
  std::int64_t n_;
  int half_bits_;
  std::uint64_t key_;
};

}  // namespace twinlens
