#pragma once
// y[i] = mask[i] ? a[i] : b[i]; broadcasting is a stride of 0. Elements are moved, not computed with, so any dtype will do.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct Choose {
  static constexpr const char* kName = "where";
  static constexpr bool kCuda = true;
  ConstStrided mask;  // bool
  ConstStrided a, b;  // one dtype; all three have the shape of y
  Buffer y;           // same dtype, dense
};
template <class I>
void kernel(I, const Choose&);
void launch(Cuda, Stream&, const Choose&);

}  // namespace twinlens
