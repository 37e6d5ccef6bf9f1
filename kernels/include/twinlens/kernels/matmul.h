#pragma once
// Matrix products with a fused epilogue. For each item of the batch, with a (rows, depth) and b (depth, cols):
//   c = activation(alpha a b + bias) + residual      (and `pre` keeps the argument of the activation), or
//   c = c + alpha a b                                 with `accumulate`.
// Everything is row-major; a transposed operand is stored as its transpose, so NN, NT, TN and TT are all this struct.
//
// Arithmetic: f32 accumulation. With Compute::bf16, both operands are rounded to bf16 first (where they are not bf16 already), on every
// instruction set; f16 and tf32 are CUDA's. On the CPU the bits of an element of c depend only on its row of a, its column of b and the
// depth: not on the other rows, on the tiling or on the number of threads. On CUDA they depend on the shapes, too, and a c of two bytes
// per element is rounded once more before a smooth activation (kernels/cuda/matmul_plan.h).
//
// Method: Goto & van de Geijn, "Anatomy of high-performance matrix multiplication" (ACM TOMS 2008); see kernels/cpu/gemm/. On CUDA,
// cuBLASLt with deterministic algorithms.

#include "twinlens/kernels/activation.h"
#include "twinlens/kernels/compute.h"
#include "twinlens/kernels/conv_geometry.h"
#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct MatmulOperand {
  const void* data = nullptr;  // f32 or bf16; f16 on CUDA
  DType dtype = DType::f32;
  std::int64_t stride = 0;        // elements from one stored row to the next
  bool transposed = false;        // stored rows run along the depth (of a) or along the columns (of b)
  std::int64_t batch_stride = 0;  // 0 for an operand shared by the batch
  // With a kernel size above 0 the stored matrix is that of the windows of the dense NHWC map at `data`, which are read where they lie;
  // `stride` is not looked at. CUDA takes some of these (cuda_reads_windows()).
  ConvGeometry windows{};
  [[gnu::always_inline]] constexpr bool is_windows() const { return windows.kernel_height > 0; }
};

struct Matmul {
  static constexpr const char* kName = "matmul";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::products;
  MatmulOperand a, b;
  Rows c;  // (rows, cols) f32 or bf16; f16 on CUDA
  std::int64_t depth = 0;
  std::int64_t batch = 1, c_batch_stride = 0;
  float alpha = 1.0F;
  Compute compute = Compute::fp32;
  bool accumulate = false;  // c is f32 and there is no epilogue
  // Epilogue; a batch has none.
  const float* bias = nullptr;  // (cols)
  Activation activation = Activation::none;
  Rows pre;                 // (rows, cols) f32 or bf16, data null when not wanted
  ConstRows residual;       // (rows, cols) f32 or bf16, data null when there is none
  void* scratch = nullptr;  // scratch_bytes() of these arguments, aligned to 64 bytes; on CUDA cuda_scratch_bytes(), to 256
  // CUDA: kMatmulWorkspace bytes for cuBLASLt, aligned to 256
  void* workspace = nullptr;
};
template <class I>
void kernel(I, const Matmul&);
void launch(Cuda, Stream&, const Matmul&);

// What the CPU body needs for arguments of these sizes and types (pointers are not looked at) with the active set and the switch below.
std::int64_t scratch_bytes(const Matmul&);

// Whether the CPU body multiplies f32 in tile registers, as sums of products of bf16 (kernels/cpu/gemm/split.h): with avx512amx, unless
// the environment has TWINLENS_SPLIT_F32=0 or it was switched off here. Errors are those of f32 arithmetic either way, the bits differ.
bool splits_f32(const Matmul&);
void set_split_f32(bool allowed);

// What the CUDA body needs: operands and bias in the type of the product, sums that c cannot hold. 0 when there is nothing to convert.
std::int64_t cuda_scratch_bytes(const Matmul&);
// Whether the CUDA body takes these arguments with an operand that is windows; where not, they are written out first (im2col).
bool cuda_reads_windows(const Matmul&);
inline constexpr std::int64_t kMatmulWorkspace = 32 << 20;  // what cuBLASLt recommends for sm_90

}  // namespace twinlens
