#pragma once
// The CPU's kernels as those of the fake card, for whole training steps: their numbers are a step's.

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "tests/fake_card/fake_card.h"

#include "twinlens/kernels/accumulate.h"
#include "twinlens/kernels/adamw.h"
#include "twinlens/kernels/affine.h"
#include "twinlens/kernels/attention.h"
#include "twinlens/kernels/batch_norm.h"
#include "twinlens/kernels/bias_gradient.h"
#include "twinlens/kernels/binary.h"
#include "twinlens/kernels/copy.h"
#include "twinlens/kernels/im2col.h"
#include "twinlens/kernels/index_select.h"
#include "twinlens/kernels/info_nce.h"
#include "twinlens/kernels/l2_normalize.h"
#include "twinlens/kernels/layer_norm.h"
#include "twinlens/kernels/matmul.h"
#include "twinlens/kernels/norm2.h"
#include "twinlens/kernels/patchify.h"
#include "twinlens/kernels/pool2d.h"
#include "twinlens/kernels/reduce_rows.h"
#include "twinlens/kernels/step_verdict.h"
#include "twinlens/kernels/unary.h"

namespace twinlens::test {

// Zeroed, since what is not written must not depend on what ran before.
inline std::unique_ptr<float, decltype(&std::free)> scratch_of(std::int64_t bytes) {
  const std::size_t size = (static_cast<std::size_t>(bytes) / 64 + 1) * 64;
  auto* data = static_cast<float*>(std::aligned_alloc(64, size));
  std::fill(data, data + size / sizeof(float), 0.0F);
  return {data, &std::free};
}

// A card's scratch has another size.
template <class Args>
void set_fake_attention() {
  set_fake_kernel<Args>([](const Args& args) {
    Args own = args;
    const auto scratch = scratch_of(own.problem.slots * scratch_floats(own) * 4);
    own.problem.scratch = scratch.get();
    kernel(Scalar{}, own);
  });
}

template <class... Args>
void set_fake_kernels_of() {
  (set_fake_kernel_of<Args, Scalar>(), ...);
}

inline void set_step_kernels() {
  set_fake_kernels_of<Accumulate, AdamW, Affine, BatchNormStatistics, BatchNormForward, BatchNormBackward, BiasGradient, Binary, Copy, Fill,
                      Im2Col, Col2Im, IndexSelect, ScatterAdd, InfoNceDiagonal, InfoNceStatistics, InfoNceLoss, InfoNceGradient,
                      InfoNceFinish, SigmoidLossTile, SigmoidLossFinish, L2NormalizeForward, L2NormalizeBackward, LayerNormForward,
                      LayerNormBackward, SumOfSquares, PatchifyForward, PatchifyBackward, ReduceRows, StepVerdict, UnaryForward,
                      UnaryBackward, AvgPool2dForward, AvgPool2dBackward>();
  set_fake_attention<AttentionForward>();
  set_fake_attention<AttentionBackward>();
  set_fake_kernel<Matmul>([](const Matmul& args) {
    Matmul own = args;
    const auto scratch = scratch_of(scratch_bytes(own));  // of the active set
    own.scratch = scratch.get();
    with_isa<Matmul::kBf16>([&](auto isa) { kernel(isa, own); });
  });
}

}  // namespace twinlens::test
