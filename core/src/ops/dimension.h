#pragma once
// The dimension that an op was asked for, counted from the front.

#include <string>

#include "twinlens/core/check.h"

namespace twinlens {

// d in [0, rank), -1 is the last. Throws ShapeError in the op's name.
inline int dimension_of(const Where& where, const Tensor& x, int d) {
  const int rank = x.rank(), i = d < 0 ? d + rank : d;
  if (i < 0 || i >= rank) {
    fail(ErrorKind::shape, where,
         "dimension " + std::to_string(d) + " does not exist; use one in [" + std::to_string(-rank) + ", " + std::to_string(rank) + ")",
         {{"x", x}});
  }
  return i;
}

}  // namespace twinlens
