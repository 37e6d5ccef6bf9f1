#include "twinlens/kernels/matmul.h"

#include "kernels/cpu/gemm/product.h"

namespace twinlens {

template <class I>
void kernel(I, const Matmul& m) {
  if (m.c.rows == 0 || m.c.cols == 0 || m.batch == 0) return;
  if constexpr (I::kBf16Dot) {
    if (m.compute == Compute::bf16) return gemm::multiply<I, gemm::Form::pairs>(m);
  }
#if defined(TWINLENS_TILE_REGISTERS)
  if (splits_f32(m)) return gemm::multiply<I, gemm::Form::thirds>(m);
#endif
  gemm::multiply<I, gemm::Form::floats>(m);
}
template void kernel(TWINLENS_ISA, const Matmul&);

}  // namespace twinlens
