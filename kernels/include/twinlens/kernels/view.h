#pragma once
// Plain views that argument structs are made of. They own nothing and know no Tensor.

#include <cstdint>

#include "twinlens/kernels/dtype.h"

namespace twinlens {

inline constexpr int kMaxRank = 6;

// `data` of `count` dense elements.
struct Buffer {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t count = 0;
  template <class T>
  [[gnu::always_inline]] TWINLENS_HOST_DEVICE T* as() const {
    return static_cast<T*>(data);
  }
};
struct ConstBuffer {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t count = 0;
  template <class T>
  [[gnu::always_inline]] TWINLENS_HOST_DEVICE const T* as() const {
    return static_cast<const T*>(data);
  }
};

// `rows` rows of `cols` dense elements, `stride` elements from one row to the next. `valid`, when set, points to the number of rows
// that really count (a captured CUDA graph is launched for the capacity and stops there); on the CPU it is host memory.
struct Rows {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, cols = 0, stride = 0;
  const std::int64_t* valid = nullptr;
  template <class T>
  [[gnu::always_inline]] T* row(std::int64_t i) const {
    return static_cast<T*>(data) + i * stride;
  }
};
struct ConstRows {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, cols = 0, stride = 0;
  const std::int64_t* valid = nullptr;
  template <class T>
  [[gnu::always_inline]] const T* row(std::int64_t i) const {
    return static_cast<const T*>(data) + i * stride;
  }
};

template <class R>
[[gnu::always_inline]] inline std::int64_t row_count(const R& r) {
  return r.valid != nullptr && *r.valid < r.rows ? *r.valid : r.rows;
}

// Any layout up to kMaxRank dimensions, strides in elements (0 for a broadcast dimension).
struct Strided {
  void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};
};
struct ConstStrided {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};
};

}  // namespace twinlens
