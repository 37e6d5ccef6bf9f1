#pragma once
// Attention on tensor cores: what it takes, and its launches. kernels/cuda/attention.cu has the plain kernels for the rest.

#include <type_traits>

#include "kernels/cuda/device/attention_tensor_backward.cuh"
#include "kernels/cuda/device/attention_tensor_forward.cuh"
#include "kernels/cuda/device/launch.cuh"

namespace twinlens::cuda::tensor {

inline std::int64_t mean(std::int64_t rows, const AttentionProblem& p) { return p.sequences == 0 ? 0 : ceil_div(rows, p.sequences); }

template <class Args, class Kernel>
void start(Stream& stream, const Args& a, const TensorAttention& t, Kernel kernel) {
  allow_shared(stream, kernel, t.shared_bytes);
  const std::int64_t blocks = a.problem.sequences * a.problem.heads * t.splits;
  if (blocks == 0) return;
  kernel<<<static_cast<unsigned>(blocks), t.warps * kWarp, static_cast<std::size_t>(t.shared_bytes), native(stream)>>>(
      a, Cut{static_cast<int>(t.chunk), static_cast<int>(t.splits)});
}

// Calls f(TypeTag<T>, integral constant: width).
template <class F>
void visit_tensor(DType t, std::int64_t width, F&& f) {
  const auto with_type = [&](auto width_constant) {
    if (t == DType::bf16) {
      f(TypeTag<bf16>{}, width_constant);
    } else {
      f(TypeTag<f16>{}, width_constant);
    }
  };
  switch (width) {
    case 64: return with_type(std::integral_constant<int, 64>{});
    case 80: return with_type(std::integral_constant<int, 80>{});
    case 96: return with_type(std::integral_constant<int, 96>{});
    case 112: return with_type(std::integral_constant<int, 112>{});
    default: return with_type(std::integral_constant<int, 128>{});
  }
}

template <class R>
bool rows_fit(const R& x, const AttentionProblem& p) {
  return x.data == nullptr || (x.dtype == p.q.dtype && packs_are_aligned(x.data, x.stride, 2, 8));
}

inline bool problem_fits(const AttentionProblem& p) {
  constexpr std::int64_t kMostRows = std::int64_t{1} << 30;
  return p.q.dtype != DType::f32 && p.head_dim % 8 == 0 && tensor_width(p.head_dim) != 0 && p.bias == nullptr && p.scale > 0.0F &&
         p.longest_query < kMostRows && p.longest_key < kMostRows && rows_fit(p.q, p) && rows_fit(p.k, p) && rows_fit(p.v, p);
}

inline bool takes(const AttentionForward& a) { return problem_fits(a.problem) && rows_fit(a.y, a.problem); }

inline bool takes(const AttentionBackward& a) {
  const AttentionProblem& p = a.problem;
  return problem_fits(p) && rows_fit(a.y, p) && rows_fit(a.dy, p) && rows_fit(a.dq, p) && rows_fit(a.dk, p) && rows_fit(a.dv, p);
}

// How heads with `rows` own rows in all are cut.
inline TensorAttention cut_of(const Stream& stream, const AttentionProblem& p, std::int64_t rows, std::int64_t longest_own,
                              std::int64_t longest_other) {
  const std::int64_t typical = mean(rows, p);
  const int tiles = p.row_tiles != 0 && tensor_width(p.head_dim) == 64 ? p.row_tiles : tensor_tiles(typical, p.head_dim);
  return tensor_attention(typical, longest_own, longest_other, p.head_dim, shared_limit(stream), tiles);
}
inline TensorAttention cut_of_queries(const Stream& stream, const AttentionProblem& p) {
  return cut_of(stream, p, p.q.rows, p.longest_query, p.longest_key);
}
inline TensorAttention cut_of_keys(const Stream& stream, const AttentionProblem& p) {
  return cut_of(stream, p, p.k.rows, p.longest_key, p.longest_query);
}

// Calls f(integral constant: tiles of a warp), which wide heads have one of.
template <int kWidth, class F>
void visit_tiles(const TensorAttention& t, F&& f) {
  if constexpr (kWidth == 64) {
    if (t.tiles == 2) return f(std::integral_constant<int, 2>{});
  }
  f(std::integral_constant<int, 1>{});
}

inline void launch_on(Stream& stream, const AttentionForward& a) {
  const TensorAttention t = cut_of_queries(stream, a.problem);
  visit_tensor(a.problem.q.dtype, t.width, [&]<class T, int kWidth>(TypeTag<T>, std::integral_constant<int, kWidth>) {
    visit_tiles<kWidth>(t,
                        [&]<int kTiles>(std::integral_constant<int, kTiles>) { start(stream, a, t, forward_kernel<T, kWidth, kTiles>); });
  });
}

inline void launch_on(Stream& stream, const AttentionBackward& a) {
  const TensorAttention queries = cut_of_queries(stream, a.problem), keys = cut_of_keys(stream, a.problem);
  visit_tensor(a.problem.q.dtype, queries.width, [&]<class T, int kWidth>(TypeTag<T>, std::integral_constant<int, kWidth>) {
    visit_tiles<kWidth>(queries, [&]<int kTiles>(std::integral_constant<int, kTiles>) {
      start(stream, a, queries, query_gradient_kernel<T, kWidth, kTiles>);
    });
    if (a.dk.data == nullptr && a.dv.data == nullptr) return;
    visit_tiles<kWidth>(
        keys, [&]<int kTiles>(std::integral_constant<int, kTiles>) { start(stream, a, keys, key_gradient_kernel<T, kWidth, kTiles>); });
  });
}

}  // namespace twinlens::cuda::tensor
