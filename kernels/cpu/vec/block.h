#pragma once
// Blocks: how kernels of two arguments serve every element type and layout with one f32 body. A block is at most kBlockSize elements; the
// body sees them as dense floats padded to whole registers, so it is compiled once, without tails and without conversions. Dense f32
// elements are used where they lie; everything else passes through a buffer that stays in the first-level cache.

#include "kernels/cpu/vec/past_caches.h"
#include "kernels/cpu/vec/vec.h"

namespace twinlens {

inline constexpr std::int64_t kBlockSize = 512;  // a multiple of every register width

// The next piece of a run of `left` elements: whole registers as long as there are any, then the tail alone.
template <class I>
TWINLENS_INLINE std::int64_t next_block(std::int64_t left) {
  constexpr std::int64_t w = Vec<I>::kWidth;
  if (left >= kBlockSize) return kBlockSize;
  return left >= w ? left / w * w : left;
}

// A block that is read. Keeps what it read last: a broadcast element is spread only once.
template <class I>
class ReadBlock {
 public:
  template <class T>
  TWINLENS_INLINE const float* read(const T* p, std::int64_t stride, std::int64_t n) {
    constexpr std::int64_t w = Vec<I>::kWidth;
    const std::int64_t padded = (n + w - 1) / w * w;
    if (stride == 0) {
      if (p != spread_ || padded > spread_count_) {
        const Vec<I> value(Vec<I>::widen(*p));
        for (std::int64_t i = 0; i < padded; i += w) value.store(lanes_ + i);
        spread_ = p;
        spread_count_ = padded;
      }
      return lanes_;
    }
    spread_ = nullptr;
    if (stride == 1) {
      if constexpr (sizeof(T) == sizeof(float)) {
        if (padded == n) return p;
      }
      for_lanes<I>(n, [&](std::int64_t i, std::int64_t lanes) { load_lanes<I>(p + i, lanes).store(lanes_ + i); });
      return lanes_;
    }
    for (std::int64_t i = 0; i < n; ++i) lanes_[i] = Vec<I>::widen(p[i * stride]);
    for (std::int64_t i = n; i < padded; ++i) lanes_[i] = 0.0F;
    return lanes_;
  }

 private:
  alignas(64) float lanes_[kBlockSize];
  const void* spread_ = nullptr;
  std::int64_t spread_count_ = 0;
};

// A block that is written: target() is where the body writes its whole registers, finish() brings them home. With `past_caches` p is a
// multiple of a line.
template <class I>
class WriteBlock {
 public:
  TWINLENS_INLINE explicit WriteBlock(bool past_caches) : past_caches_(past_caches) {}
  WriteBlock(const WriteBlock&) = delete;
  WriteBlock& operator=(const WriteBlock&) = delete;
  TWINLENS_INLINE ~WriteBlock() {
    if (past_caches_) end_past_caches();
  }

  template <class T>
  TWINLENS_INLINE float* target(T* p, std::int64_t n) {
    return is_straight<T>(n) ? reinterpret_cast<float*>(p) : lanes_;
  }
  // How the body stores there.
  template <class T>
  TWINLENS_INLINE RowOutput output(std::int64_t n) const {
    return {past_caches_ && is_straight<T>(n)};
  }
  template <class T>
  TWINLENS_INLINE void finish(T* p, std::int64_t n) {
    if (is_straight<T>(n)) return;
    const RowOutput out{past_caches_};
    for_lanes<I>(n, [&](std::int64_t i, std::int64_t lanes) { out.store<I>(Vec<I>::load(lanes_ + i), p + i, lanes); });
  }

 private:
  template <class T>
  TWINLENS_INLINE static bool is_straight(std::int64_t n) {
    return sizeof(T) == sizeof(float) && n % Vec<I>::kWidth == 0;
  }

  alignas(64) float lanes_[kBlockSize];
  bool past_caches_;
};

}  // namespace twinlens
