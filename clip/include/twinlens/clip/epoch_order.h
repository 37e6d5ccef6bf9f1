#pragma once
// EpochOrder: which sample stands at which place of an epoch, as a pure function of (data, seed, epoch). Nothing is drawn or kept between
// steps, so a run is taken up anywhere by a number, and any number of workers or ranks follows the same order.
//
// Whole (buffer 0): a permutation of all samples by a Feistel network, in O(1) memory.
// In blocks (buffer K > 0, for disks and streams that want to be read in sequence): runs of samples that lie behind each other - whole
// files where they are streamed, else 256 samples - come in a permuted order; what they give is cut into blocks of K samples, and each
// block is permuted. Memory: one entry a run. While a block is used the next is read. Sources with weights: weight w gives every sample
// floor(w) times an epoch, and a permuted share of w - floor(w) once more. Apart: no two equal captions in a batch; a sample whose caption
// already stands in the batch being filled waits for a later one. What never fits is left out. This keeps the order of one epoch in memory
// (8 bytes a sample).

#include <cstdint>
#include <vector>

#include "twinlens/clip/dataset.h"

namespace twinlens {

struct OrderOptions {
  std::int64_t global_batch = 1;
  std::uint64_t seed = 0;
  bool apart = false;
  bool draw_captions = false;  // caption ids are those of the epoch's drawn captions
  std::int64_t buffer = 0;     // samples, at least a global batch; 0: all, or kStreamBuffer where the data is sequential
};

inline constexpr std::int64_t kStreamBuffer = 5000;

// The number that chooses among the captions of a sample in an epoch.
std::uint64_t caption_draw(std::uint64_t seed, std::int64_t epoch, std::int64_t sample);

class EpochOrder {
 public:
  // `data` must outlive it. Throws ConfigError for apart on sequential data, which would have to be read again and again.
  EpochOrder(const Dataset& data, const OrderOptions& options, std::int64_t epoch);

  std::int64_t size() const { return size_; }  // a multiple of global_batch
  std::int64_t operator[](std::int64_t place) const { return is_apart_ ? apart_[static_cast<std::size_t>(place)] : base(place); }
  std::int64_t buffer() const { return buffer_; }  // samples in a block; 0: no blocks

 private:
  struct Run {
    std::int64_t begin = 0, first = 0;  // sample; place in the sequence of runs
  };
  struct Source {
    DataSource data;
    std::int64_t entries = 0, first = 0;  // how many places it takes, and the first of them
  };
  std::int64_t base(std::int64_t place) const;
  std::int64_t sample_of_entry(std::int64_t entry) const;
  void make_runs(const Dataset& data, bool sequential);
  void keep_apart(const Dataset& data, const OrderOptions& options);

  std::uint64_t seed_;
  std::int64_t epoch_;
  std::int64_t buffer_ = 0, entries_ = 0, size_ = 0;
  std::vector<Source> sources_;
  std::vector<Run> runs_;
  bool is_apart_ = false;
  std::vector<std::int64_t> apart_;  // the order then; an epoch may be without a batch
};

}  // namespace twinlens
