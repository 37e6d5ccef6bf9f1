#include "twinlens/core/shape.h"

#include <algorithm>

#include "twinlens/kernels/error.h"

namespace twinlens {

Shape::Shape(std::initializer_list<std::int64_t> sizes) {
  if (sizes.size() > kMaxRank) {
    std::string text;
    for (const std::int64_t size : sizes) text += (text.empty() ? "[" : ",") + std::to_string(size);
    throw ShapeError("shape: " + std::to_string(sizes.size()) + " dimensions were given; shape " + text + "]; a tensor has at most " +
                     std::to_string(kMaxRank) + ", merge some by reshape");
  }
  for (const std::int64_t size : sizes) push_back(size);
}

Shape Shape::of_rank(int rank) {
  Shape shape;
  for (int d = 0; d < rank; ++d) shape.push_back(1);
  return shape;
}

int Shape::index(int d) const {
  const int i = d < 0 ? d + rank_ : d;
  if (i < 0 || i >= rank_) {
    throw ShapeError("shape: dimension " + std::to_string(d) + " does not exist; shape " + to_string(*this) + "; use one in [" +
                     std::to_string(-rank_) + ", " + std::to_string(rank_) + ")");
  }
  return i;
}

std::int64_t Shape::count() const {
  std::int64_t n = 1;
  for (const std::int64_t size : *this) {
    if (__builtin_mul_overflow(n, size, &n))
      throw ShapeError("shape: more elements than 64 bits can count; shape " + to_string(*this) + "; check the sizes");
  }
  return n;
}

void Shape::push_back(std::int64_t size) {
  if (rank_ == kMaxRank) {
    throw ShapeError("shape: one dimension more, of size " + std::to_string(size) + ", than a tensor can have; shape " + to_string(*this) +
                     "; merge some by reshape");
  }
  sizes_[rank_++] = size;
}

Shape Shape::without(int d) const {
  const int drop = index(d);
  Shape out;
  for (int i = 0; i < rank_; ++i) {
    if (i != drop) out.push_back(sizes_[i]);
  }
  return out;
}

bool operator==(const Shape& a, const Shape& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) {
    if (text.size() > 1) text += ',';
    text += std::to_string(size);
  }
  return text + "]";
}

Shape dense_strides(const Shape& shape) {
  Shape strides = Shape::of_rank(shape.rank());
  std::int64_t stride = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    strides[d] = stride;
    // Without elements the product may wrap around: nothing is read by such strides.
    (void)__builtin_mul_overflow(stride, shape[d], &stride);
  }
  return strides;
}

Shape broadcast_shape(const char* op, const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out = Shape::of_rank(rank);
  for (int d = 1; d <= rank; ++d) {
    const std::int64_t sa = d <= a.rank() ? a[-d] : 1;
    const std::int64_t sb = d <= b.rank() ? b[-d] : 1;
    if (sa != sb && sa != 1 && sb != 1) {
      throw ShapeError(std::string(op) + ": shapes do not broadcast; a=" + to_string(a) + ", b=" + to_string(b) +
                       "; sizes must be equal or 1, counted from the last");
    }
    out[-d] = sa == 1 ? sb : sa;
  }
  return out;
}

}  // namespace twinlens
