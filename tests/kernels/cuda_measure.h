#pragma once
// What the measurements on a card share: memory with random numbers in it, and the time of a call.

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <functional>

#include "twinlens/kernels/copy.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/random_fill.h"
#include "twinlens/kernels/stream.h"

namespace twinlens {

inline constexpr Device kCard{DeviceType::cuda, 0};

// Memory of the card with random numbers in it: zeros flatter.
struct Block {
  Memory memory;
  DType dtype;
  std::int64_t count;
  Block(std::int64_t n, DType t) : memory(allocate(current_stream(kCard), static_cast<std::size_t>(n * size_of(t)))), dtype(t), count(n) {
    const Memory source = allocate(current_stream(kCard), static_cast<std::size_t>(n) * sizeof(float));
    run(current_stream(kCard), RandomFill{{source.data(), DType::f32, n}, true, 0.0, 1.0, 7});
    Copy copy;
    copy.x.data = source.data();
    copy.y.data = memory.data();
    copy.y.dtype = t;
    copy.x.rank = copy.y.rank = 1;
    copy.x.shape[0] = copy.y.shape[0] = n;
    copy.x.strides[0] = copy.y.strides[0] = 1;
    run(current_stream(kCard), copy);
  }
  Buffer buffer() const { return {memory.data(), dtype, count}; }
  ConstBuffer read() const { return {memory.data(), dtype, count}; }
  Rows rows(std::int64_t n) const { return {memory.data(), dtype, n, count / n, count / n, nullptr}; }
  ConstRows read_rows(std::int64_t n) const { return {memory.data(), dtype, n, count / n, count / n, nullptr}; }
  float* floats() const { return static_cast<float*>(memory.data()); }
};

// Seconds of a call: the best of five rounds of twenty.
inline double seconds(const std::function<void()>& call) {
  Stream& stream = current_stream(kCard);
  for (int i = 0; i < 5; ++i) call();
  double best = 1e30;
  for (int round = 0; round < 5; ++round) {
    synchronize(stream);
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) call();
    synchronize(stream);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 20.0);
  }
  return best;
}

}  // namespace twinlens
