#pragma once
// Shape: up to kMaxRank sizes, inline. Strides are a Shape too, in elements.

#include <cstdint>
#include <initializer_list>
#include <string>

#include "twinlens/kernels/view.h"

namespace twinlens {

class Shape {
 public:
  Shape() = default;
  // Throws ShapeError when there are more than kMaxRank sizes.
  Shape(std::initializer_list<std::int64_t> sizes);
  static Shape of_rank(int rank);  // all sizes 1

  int rank() const { return rank_; }
  // d may be negative: -1 is the last dimension. Throws ShapeError outside the rank.
  std::int64_t operator[](int d) const { return sizes_[index(d)]; }
  std::int64_t& operator[](int d) { return sizes_[index(d)]; }
  // d in [0, rank), -1 counted from the end.
  int index(int d) const;
  // Product of the sizes; 1 for rank 0. Throws ShapeError when 64 bits do not hold it.
  std::int64_t count() const;
  void push_back(std::int64_t size);
  Shape without(int d) const;

  const std::int64_t* begin() const { return sizes_; }
  const std::int64_t* end() const { return sizes_ + rank_; }
  friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::int64_t sizes_[kMaxRank] = {};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);  // "[32,50,768]"
Shape dense_strides(const Shape& shape);
// The shape both broadcast to by NumPy's rule. Throws ShapeError naming `op` and both shapes.
Shape broadcast_shape(const char* op, const Shape& a, const Shape& b);

}  // namespace twinlens
