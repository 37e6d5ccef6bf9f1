#pragma once
// Rows of twinlens_bench. The name says the op, the shape, the dtype and the direction.

#include <functional>
#include <string>

#include "twinlens/core/tensor.h"

namespace twinlens::bench {

// The rates that shares are taken of, measured once at the start of the process.
struct Peaks {
  double fp32_gflops = 0.0, bf16_gflops = 0.0;
};
const Peaks& peaks();

struct Work {
  double flops = 0.0, bytes = 0.0;  // of one call; bytes that must be moved at least
  bool bf16 = false;                // products in bf16
};

// Counters GFLOP/s and GB/s of one call, and %peak: the share of the nearer limit, of the multiply-adds or of the memory.
// extra_bytes: tensors at the peak of a call, beside what is alive before and after it.
void add_row(const std::string& name, const Work& work, const std::function<void()>& call);

// x as an op in the middle of a model gives it: a gradient comes to it in its own dtype and ends there. (A leaf would widen it to f32 and
// keep it, which is no part of the op that a row times.)
Tensor inside_a_model(const Tensor& x);

void add_op_case_rows();  // every op case with `bench`, forward and backward, f32 and bf16
void add_shape_rows();    // products, attention, norms, activations and AdamW at the shapes of CLIP's training steps

}  // namespace twinlens::bench
