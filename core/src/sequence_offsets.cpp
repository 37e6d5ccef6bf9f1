#include "twinlens/core/sequence_offsets.h"

#include <algorithm>
#include <string>

#include "twinlens/core/check.h"
#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/graph.h"

namespace twinlens {

struct SequenceOffsets::State {
  std::vector<std::int64_t> host;
  Tensor tensor;
  std::int64_t longest = 0, shortest = 0;
  bool ascending = true;

  State(std::vector<std::int64_t> at, Tensor on_device) : host(std::move(at)), tensor(std::move(on_device)) {
    ascending = host.front() == 0;
    for (std::size_t s = 1; s < host.size(); ++s) {
      const std::int64_t length = host[s] - host[s - 1];
      ascending = ascending && length >= 0;
      longest = std::max(longest, length);
      shortest = s == 1 ? length : std::min(shortest, length);
    }
  }
};

SequenceOffsets::SequenceOffsets(std::vector<std::int64_t> at, Device device) {
  check(!at.empty(), "sequence_offsets", "must hold (sequences + 1) values");
  Tensor tensor = from_vector(at, {static_cast<std::int64_t>(at.size())}).to(device);
  state_ = std::make_shared<const State>(std::move(at), std::move(tensor));
}

SequenceOffsets::SequenceOffsets(std::vector<std::int64_t> at, const Tensor& on_device) {
  check(!at.empty(), "sequence_offsets", "must hold (sequences + 1) values");
  check(on_device.dtype() == DType::i64 && on_device.is_dense() && on_device.shape() == Shape{static_cast<std::int64_t>(at.size())},
        "sequence_offsets", "the device's copy must be dense (sequences + 1) i64", {{"offsets", on_device}});
  state_ = std::make_shared<const State>(std::move(at), on_device);
}

SequenceOffsets::SequenceOffsets(const Tensor& offsets) {
  if (!offsets.defined()) return;
  check(offsets.rank() == 1 && offsets.size(0) >= 1, "sequence_offsets", "must be (sequences + 1)", {{"offsets", offsets}});
  check_dtype(offsets.dtype() == DType::i64, "sequence_offsets", "must be i64", {{"offsets", offsets}});
  state_ = std::make_shared<const State>(offsets.to_ints(), offsets.clone());  // the caller's may change
}

const Tensor& SequenceOffsets::tensor() const {
  check(defined(), "sequence_offsets", "there are none; equal_offsets() makes those of a dense batch");
  return state_->tensor;
}

const std::vector<std::int64_t>& SequenceOffsets::host() const {
  check(defined(), "sequence_offsets", "there are none; equal_offsets() makes those of a dense batch");
  return state_->host;
}

Tensor SequenceOffsets::starts() const { return tensor().slice(0, 0, sequences()); }
std::int64_t SequenceOffsets::sequences() const { return static_cast<std::int64_t>(host().size()) - 1; }
std::int64_t SequenceOffsets::rows() const { return host().back(); }
std::int64_t SequenceOffsets::longest() const { return host().size() > 1 ? state_->longest : 0; }
bool SequenceOffsets::ascending() const { return host().front() == 0 && state_->ascending; }
bool SequenceOffsets::all_of(std::int64_t length) const {
  return host().size() == 1 || (state_->longest == length && state_->shortest == length);
}

SequenceOffsets SequenceOffsets::to(Device device) const {
  if (!defined() || state_->tensor.device() == device) return *this;
  return SequenceOffsets(state_->host, device);
}

namespace {

SequenceOffsets make_equal(std::int64_t sequences, std::int64_t length, Device device) {
  std::vector<std::int64_t> at(static_cast<std::size_t>(sequences) + 1);
  for (std::size_t s = 0; s < at.size(); ++s) at[s] = static_cast<std::int64_t>(s) * length;
  return SequenceOffsets(std::move(at), device);
}

struct Remembered {
  std::int64_t sequences = 0, length = 0;
  Device device;
  SequenceOffsets offsets;
};

// A copy belongs to the stream, and so to the thread, on which it was made.
const SequenceOffsets& remembered(std::int64_t sequences, std::int64_t length, Device device) {
  constexpr std::size_t kMost = 64;  // more than the sizes of text that steps in graphs have (docs/decisions/0018-graphs.md)
  thread_local std::vector<Remembered> known;
  const auto found = std::find_if(known.begin(), known.end(), [&](const Remembered& r) {
    return r.sequences == sequences && r.length == length && r.device == device;
  });
  if (found != known.end()) {
    std::rotate(found, found + 1, known.end());  // what is used stays longest
    return known.back().offsets;
  }
  if (known.size() == kMost) known.erase(known.begin());
  const auto own_memory = MemoryPool::Use::none();
  known.push_back({sequences, length, device, make_equal(sequences, length, device)});
  return known.back().offsets;
}

}  // namespace

SequenceOffsets equal_offsets(std::int64_t sequences, std::int64_t length, Device device) {
  check(sequences >= 0 && length >= 0, "equal_offsets",
        "sequences = " + std::to_string(sequences) + " and length = " + std::to_string(length) + " must not be negative");
  std::int64_t rows = 0;
  check(!__builtin_mul_overflow(sequences, length, &rows), "equal_offsets",
        std::to_string(sequences) + " sequences of " + std::to_string(length) + " rows are more rows than 64 bits can count");
  // (What a dry run hands out must not outlive it.)
  if (device.is_cpu() || DryRun::current() != nullptr) return make_equal(sequences, length, device);
  const SequenceOffsets& offsets = remembered(sequences, length, device);
  Graph::keep(offsets.tensor().state());
  return offsets;
}

}  // namespace twinlens
