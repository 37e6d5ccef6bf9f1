#pragma once
// SequenceOffsets: where sequences that lie back to back in rows begin. Sequence s has the rows [at(s), at(s + 1)). The numbers live on
// the host and on a device at once, so that ops can check shapes and choose launches without waiting for the device, and kernels read
// their copy. A cheap shared handle, never changed after it was made.

#include <cstdint>
#include <memory>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

class SequenceOffsets {
 public:
  SequenceOffsets() = default;
  explicit SequenceOffsets(std::vector<std::int64_t> at, Device device = kCpu);
  // With a copy that is on a device already, and holds these numbers; it is shared and must not be written to meanwhile.
  SequenceOffsets(std::vector<std::int64_t> at, const Tensor& on_device);
  // (S + 1) i64. Implicit, so that a tensor serves as offsets; of a CUDA tensor the values are read back, which waits for the device.
  SequenceOffsets(const Tensor& offsets);  // NOLINT(google-explicit-constructor)

  bool defined() const { return state_ != nullptr; }
  const Tensor& tensor() const;  // (S + 1) i64 on its device
  Tensor starts() const;         // (S) i64: the first row of each sequence
  const std::vector<std::int64_t>& host() const;

  std::int64_t sequences() const;
  std::int64_t rows() const;     // the last offset
  std::int64_t longest() const;  // rows of the longest sequence
  bool ascending() const;        // from 0 and never down, as they must be
  bool all_of(std::int64_t length) const;

  SequenceOffsets to(Device device) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// Offsets of S sequences of equal length: 0, T, 2T, ... Those of a CUDA device are remembered by the calling thread, since towers ask for
// the same ones in every step.
SequenceOffsets equal_offsets(std::int64_t sequences, std::int64_t length, Device device = kCpu);

}  // namespace twinlens
