#pragma once
// A copy between two layouts, cut into words. Plain host arithmetic, tested in tests/kernels/cuda_geometry.cpp; nothing here includes a
// CUDA header.

#include "kernels/cpu/copy_plan.h"
#include "kernels/cuda/geometry.h"

namespace twinlens::cuda {

// A copy of elements of one size as one of words.
struct CopyWords {
  CopyPlan plan;              // counts words
  std::int64_t bytes = 0;     // of a word: those of an element, or more, 16 at most
  std::int64_t elements = 1;  // of a word
};

// The widest words that the innermost runs consist of, and on which they start on both sides; a stride of 0 starts where the others do.
inline CopyWords copy_words(const CopyPlan& plan, const void* x, const void* y, std::int64_t element_size) {
  CopyWords w{plan, element_size, 1};
  const int inner = plan.rank - 1;
  if (plan.sx[inner] != 1 || plan.sy[inner] != 1) return w;
  std::int64_t runs = plan.shape[inner];  // or'ed: the lowest bit is the widest power of two that divides all
  for (int d = 0; d < inner; ++d) runs |= plan.sx[d] | plan.sy[d];
  const std::int64_t word = common_word(x, y, runs * element_size);
  if (word <= element_size) return w;
  w.bytes = word;
  w.elements = word / element_size;
  w.plan.shape[inner] /= w.elements;
  for (int d = 0; d < inner; ++d) {
    w.plan.sx[d] /= w.elements;
    w.plan.sy[d] /= w.elements;
  }
  return w;
}

}  // namespace twinlens::cuda
