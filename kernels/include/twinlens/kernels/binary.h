#pragma once
// y = f(a, b), elementwise; broadcasting is a stride of 0.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

enum class BinaryFunction : std::uint8_t {
  add,
  sub,
  mul,
  div,
  maximum,  // NaN if either is
  minimum,
  share_above,  // the share of a in the gradient of maximum: 0 where a < b, 1/2 where a = b, else 1 (of NaN both have all, as in PyTorch)
  share,        // a b, and 0 where b is 0 whatever a is
};

struct Binary {
  static constexpr const char* kName = "binary";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  BinaryFunction function;
  ConstStrided a, b;  // float, one dtype, both with the shape of y
  Buffer y;           // dense; same dtype, or f32
};
template <class I>
void kernel(I, const Binary&);
void launch(Cuda, Stream&, const Binary&);

enum class Comparison : std::uint8_t { equal, less };

// y = a == b or a < b as 0 and 1. Floats compare as IEEE says (NaN is neither equal nor less), integers exactly.
struct Compare {
  static constexpr const char* kName = "compare";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::rounding;
  Comparison comparison;
  ConstStrided a, b;  // any dtype, the same for both, shape of y
  Buffer y;           // bool, dense
};
template <class I>
void kernel(I, const Compare&);
void launch(Cuda, Stream&, const Compare&);

}  // namespace twinlens
