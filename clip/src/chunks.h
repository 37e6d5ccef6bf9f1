#pragma once
// How a batch is cut where not all of its pairs are encoded at once.

#include <cstdint>

namespace twinlens {

// n pairs in as few chunks of at most `most` as that takes, all of nearly one size, the larger ones first: a last one of a few pairs would
// be work for few threads, and of one pair batch norm could say nothing.
struct Chunks {
  std::int64_t count, smallest, largest, larger;  // larger: how many are of the largest size, where not all are
  Chunks(std::int64_t n, std::int64_t most)
      : count(n > most ? (n + most - 1) / most : 1), smallest(n / count), largest((n + count - 1) / count), larger(n % count) {}
  std::int64_t begin(std::int64_t i) const { return i * smallest + (i < larger ? i : larger); }
};

}  // namespace twinlens
