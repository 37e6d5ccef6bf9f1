// Attention: on tensor cores where they take it (device/attention_tensor.cuh), else the plain kernels: any type, head dim and length,
// arithmetic in f32. A block keeps some rows of a head (queries, or keys for dk and dv) whole in shared memory; the rows of the other side
// stream by in tiles of 32 rows x 64 columns, a lane for each row.
#include "kernels/cuda/device/attention_head.cuh"
#include "kernels/cuda/device/attention_tensor.cuh"
#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/rows.cuh"

namespace twinlens {
namespace {

using namespace cuda;

constexpr int kThreads = PlainAttention::kThreads, kWarps = kThreads / kWarp;
constexpr int kOthers = PlainAttention::kOthers, kChunk = PlainAttention::kChunk;
static_assert(kOthers == kWarp);
constexpr unsigned kAll = 0xFFFFFFFFU;

using Tile = float[kOthers][kChunk + 1];

__device__ float warp_sum(float x) { return group_sum<kWarp>(x); }
__device__ float warp_max(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, offset));
  return x;
}

struct Shared {
  float* next;
  __device__ float* take(std::int64_t floats) {
    float* at = next;
    next += floats;
    return at;
  }
};

// The block's own rows [first, first + count), zeros up to `rows`.
template <class T>
__device__ void load_own(const ConstRows& x, std::int64_t first, std::int64_t count, std::int64_t column, std::int64_t d, int rows,
                         float* own) {
  for (std::int64_t i = threadIdx.x; i < rows * d; i += kThreads) {
    const std::int64_t r = i / d;
    own[i] = r < count ? to_float(row_of<T>(x, first + r)[column + i - r * d]) : 0.0F;
  }
}

template <class T>
__device__ void store_own(const float* own, std::int64_t first, std::int64_t count, std::int64_t column, std::int64_t d, const Rows& x) {
  for (std::int64_t i = threadIdx.x; i < count * d; i += kThreads) {
    const std::int64_t r = i / d;
    row_of<T>(x, first + r)[column + i - r * d] = from_float<T>(own[i]);
  }
}

// Columns [d0, d0 + kChunk) of the rows from `first` on, of which there are `count`; zeros elsewhere. All threads come here.
template <class T>
__device__ void load_tile(const ConstRows& x, std::int64_t first, std::int64_t count, std::int64_t column, std::int64_t d0, std::int64_t d,
                          Tile& tile) {
  __syncthreads();  // the last tile may still be read
  for (int i = threadIdx.x; i < kOthers * kChunk; i += kThreads) {
    const int r = i / kChunk, c = i % kChunk;
    tile[r][c] = r < count && d0 + c < d ? to_float(row_of<T>(x, first + r)[column + d0 + c]) : 0.0F;
  }
  __syncthreads();
}

// dots[r] = own row r of this warp times the lane's row of the streaming side.
template <class T, int kRows>
__device__ void dot_rows(const float* own, const ConstRows& x, std::int64_t first, std::int64_t count, std::int64_t column, std::int64_t d,
                         Tile& tile, float (&dots)[kRows]) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int r = 0; r < kRows; ++r) dots[r] = 0.0F;
  for (std::int64_t d0 = 0; d0 < d; d0 += kChunk) {
    load_tile<T>(x, first, count, column, d0, d, tile);
    const int n = static_cast<int>(d - d0 < kChunk ? d - d0 : kChunk);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float* row = own + (warp * kRows + r) * d + d0;
      for (int c = 0; c < n; ++c) dots[r] += row[c] * tile[lane][c];
    }
  }
}

// sums row r of this warp += sum over lanes of weights[r] times their row of the streaming side.
template <class T, int kRows>
__device__ void add_rows(const float (&weights)[kRows], const ConstRows& x, std::int64_t first, std::int64_t count, std::int64_t column,
                         std::int64_t d, Tile& tile, float* sums) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (std::int64_t d0 = 0; d0 < d; d0 += kChunk) {
    load_tile<T>(x, first, count, column, d0, d, tile);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float* row = sums + (warp * kRows + r) * d + d0;
      float low = 0.0F, high = 0.0F;
      for (int j = 0; j < kOthers; ++j) {
        const float weight = __shfl_sync(kAll, weights[r], j);
        low += weight * tile[j][lane];
        high += weight * tile[j][lane + kWarp];
      }
      if (d0 + lane < d) row[lane] += low;
      if (d0 + lane + kWarp < d) row[lane + kWarp] += high;
    }
  }
}

// The score of query i and key j from their dot product; -inf where the query does not see the key.
__device__ float score_of(const AttentionProblem& p, const Head& h, std::int64_t i, std::int64_t j, float dot) {
  if (i >= h.queries || j >= h.keys || (p.causal && j > i + h.offset)) return -__int_as_float(0x7F800000);
  return dot * p.scale + (h.bias != nullptr ? h.bias[i * h.keys + j] : 0.0F);
}

struct Block {
  std::int64_t sequence, head, first;  // first of the block's own rows in the sequence
};
__device__ Block block_of(const AttentionProblem& p, std::int64_t blocks_per_head, int rows) {
  const std::int64_t item = blockIdx.x / blocks_per_head;
  return {item / p.heads, item % p.heads, (blockIdx.x - item * blocks_per_head) * rows};
}

__device__ std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
__device__ std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// Keys that some query of [i, i + rows) sees.
__device__ std::int64_t keys_seen(const AttentionProblem& p, const Head& h, std::int64_t i, int rows) {
  if (!p.causal) return h.keys;
  return most(0, least(h.keys, least(i + rows, h.queries) + h.offset));
}

template <class T, int kRows>
__global__ void __launch_bounds__(kThreads) forward_kernel(AttentionForward a, std::int64_t blocks_per_head) {
  extern __shared__ float shared[];
  constexpr int kOwn = kRows * kWarps;
  const AttentionProblem& p = a.problem;
  const Block b = block_of(p, blocks_per_head, kOwn);
  const Head h = head_of(p, b.sequence, b.head);
  if (b.first >= h.queries) return;
  const std::int64_t d = p.head_dim, count = least(kOwn, h.queries - b.first);
  Shared memory{shared};
  Tile& tile = *reinterpret_cast<Tile*>(memory.take(kOthers * (kChunk + 1)));
  float *q = memory.take(kOwn * d), *out = memory.take(kOwn * d);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  load_own<T>(p.q, h.query + b.first, count, h.column, d, kOwn, q);
  for (std::int64_t i = threadIdx.x; i < kOwn * d; i += kThreads) out[i] = 0.0F;
  __syncthreads();
  float largest[kRows], sum[kRows], weight[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    largest[r] = -__int_as_float(0x7F800000);
    sum[r] = 0.0F;
  }
  const std::int64_t seen = keys_seen(p, h, b.first, kOwn);
  for (std::int64_t j = 0; j < seen; j += kOthers) {
    dot_rows<T, kRows>(q, p.k, h.key + j, h.keys - j, h.column, d, tile, weight);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float score = score_of(p, h, b.first + warp * kRows + r, j + lane, weight[r]);
      const float top = fmaxf(largest[r], warp_max(score)), shift = top < -3e38F ? 0.0F : top;
      weight[r] = expf(score - shift);
      const float factor = expf(largest[r] - shift);
      sum[r] = sum[r] * factor + warp_sum(weight[r]);
      largest[r] = top;
      if (factor == 1.0F) continue;
      float* row = out + (warp * kRows + r) * d;
      for (std::int64_t c = lane; c < d; c += kWarp) row[c] *= factor;
    }
    __syncwarp();
    add_rows<T, kRows>(weight, p.v, h.key + j, h.keys - j, h.column, d, tile, out);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t i = warp * kRows + r;
    if (i >= count) continue;
    const float scale = sum[r] == 0.0F ? 0.0F : 1.0F / sum[r];
    float* row = out + i * d;
    for (std::int64_t c = lane; c < d; c += kWarp) row[c] *= scale;
    if (lane == 0) a.lse[h.lse + b.first + i] = sum[r] == 0.0F ? 0.0F : largest[r] + logf(sum[r]);
  }
  __syncthreads();
  store_own<T>(out, h.query + b.first, count, h.column, d, a.y);
}

// dq of the block's queries, and delta of each.
template <class T, int kRows>
__global__ void __launch_bounds__(kThreads) query_gradient_kernel(AttentionBackward a, std::int64_t blocks_per_head) {
  extern __shared__ float shared[];
  constexpr int kOwn = kRows * kWarps;
  const AttentionProblem& p = a.problem;
  const Block b = block_of(p, blocks_per_head, kOwn);
  const Head h = head_of(p, b.sequence, b.head);
  if (b.first >= h.queries) return;
  const std::int64_t d = p.head_dim, count = least(kOwn, h.queries - b.first);
  Shared memory{shared};
  Tile& tile = *reinterpret_cast<Tile*>(memory.take(kOthers * (kChunk + 1)));
  float *q = memory.take(kOwn * d), *dy = memory.take(kOwn * d), *dq = memory.take(kOwn * d);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  load_own<T>(p.q, h.query + b.first, count, h.column, d, kOwn, q);
  load_own<T>(a.dy, h.query + b.first, count, h.column, d, kOwn, dy);
  load_own<T>(a.y, h.query + b.first, count, h.column, d, kOwn, dq);  // y, until delta is known
  __syncthreads();
  float delta[kRows], lse[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t i = warp * kRows + r;
    float sum = 0.0F;
    for (std::int64_t c = lane; c < d; c += kWarp) {
      sum += dy[i * d + c] * dq[i * d + c];
      dq[i * d + c] = 0.0F;
    }
    delta[r] = warp_sum(sum);
    lse[r] = i < count ? a.lse[h.lse + b.first + i] : 0.0F;
    if (lane == 0 && i < count) p.scratch[h.lse + b.first + i] = delta[r];
  }
  __syncwarp();
  if (a.dq.data == nullptr) return;
  const std::int64_t seen = keys_seen(p, h, b.first, kOwn);
  for (std::int64_t j = 0; j < seen; j += kOthers) {
    float weight[kRows], slope[kRows];
    dot_rows<T, kRows>(q, p.k, h.key + j, h.keys - j, h.column, d, tile, weight);
    dot_rows<T, kRows>(dy, p.v, h.key + j, h.keys - j, h.column, d, tile, slope);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      weight[r] = expf(score_of(p, h, b.first + warp * kRows + r, j + lane, weight[r]) - lse[r]);
      weight[r] *= p.scale * (slope[r] - delta[r]);
    }
    add_rows<T, kRows>(weight, p.k, h.key + j, h.keys - j, h.column, d, tile, dq);
  }
  __syncthreads();
  store_own<T>(dq, h.query + b.first, count, h.column, d, a.dq);
}

// dk and dv of the block's keys; queries stream by.
template <class T, int kRows>
__global__ void __launch_bounds__(kThreads) key_gradient_kernel(AttentionBackward a, std::int64_t blocks_per_head) {
  extern __shared__ float shared[];
  constexpr int kOwn = kRows * kWarps;
  const AttentionProblem& p = a.problem;
  const Block b = block_of(p, blocks_per_head, kOwn);
  const Head h = head_of(p, b.sequence, b.head);
  if (b.first >= h.keys) return;
  const std::int64_t d = p.head_dim, count = least(kOwn, h.keys - b.first);
  Shared memory{shared};
  Tile& tile = *reinterpret_cast<Tile*>(memory.take(kOthers * (kChunk + 1)));
  float *k = memory.take(kOwn * d), *v = memory.take(kOwn * d), *dk = memory.take(kOwn * d), *dv = memory.take(kOwn * d);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  load_own<T>(p.k, h.key + b.first, count, h.column, d, kOwn, k);
  load_own<T>(p.v, h.key + b.first, count, h.column, d, kOwn, v);
  for (std::int64_t i = threadIdx.x; i < kOwn * d; i += kThreads) dk[i] = dv[i] = 0.0F;
  __syncthreads();
  // The first query that sees the block's first key.
  const std::int64_t begin = p.causal ? most(0, b.first - h.offset) : 0;
  for (std::int64_t i = begin; i < h.queries; i += kOthers) {
    const std::int64_t query = i + lane;
    const bool real = query < h.queries;
    const float lse = real ? a.lse[h.lse + query] : 0.0F, delta = real ? p.scratch[h.lse + query] : 0.0F;
    float weight[kRows], slope[kRows];
    dot_rows<T, kRows>(k, p.q, h.query + i, h.queries - i, h.column, d, tile, weight);
    dot_rows<T, kRows>(v, a.dy, h.query + i, h.queries - i, h.column, d, tile, slope);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      weight[r] = expf(score_of(p, h, query, b.first + warp * kRows + r, weight[r]) - lse);
      slope[r] = weight[r] * p.scale * (slope[r] - delta);
    }
    add_rows<T, kRows>(weight, a.dy, h.query + i, h.queries - i, h.column, d, tile, dv);
    add_rows<T, kRows>(slope, p.q, h.query + i, h.queries - i, h.column, d, tile, dk);
  }
  __syncthreads();
  if (a.dk.data != nullptr) store_own<T>(dk, h.key + b.first, count, h.column, d, a.dk);
  if (a.dv.data != nullptr) store_own<T>(dv, h.key + b.first, count, h.column, d, a.dv);
}

template <class Args, class Kernel>
void launch_plain(Stream& stream, const Args& a, const PlainAttention& geometry, Kernel kernel) {
  allow_shared(stream, kernel, geometry.shared_bytes);
  kernel<<<static_cast<unsigned>(geometry.blocks), kThreads, static_cast<std::size_t>(geometry.shared_bytes), native(stream)>>>(
      a, geometry.blocks_per_head);
}

// Calls f(TypeTag<T>, integral constant: own rows of a warp).
template <class F>
void visit_plain(const PlainAttention& geometry, DType t, F&& f) {
  if (geometry.blocks == 0) return;
  visit_cuda_float(t, [&](auto type) {
    if (geometry.rows == 16) {
      f(type, std::integral_constant<int, 4>{});
    } else {
      f(type, std::integral_constant<int, 1>{});
    }
  });
}

}  // namespace

void launch(Cuda, Stream& stream, const AttentionForward& a) {
  if (tensor::takes(a)) return tensor::launch_on(stream, a);
  const AttentionProblem& p = a.problem;
  const PlainAttention geometry = plain_attention(p.sequences * p.heads, p.longest_query, p.head_dim, 2);
  visit_plain(geometry, p.q.dtype, [&]<class T, int kRows>(TypeTag<T>, std::integral_constant<int, kRows>) {
    launch_plain(stream, a, geometry, forward_kernel<T, kRows>);
  });
}

void launch(Cuda, Stream& stream, const AttentionBackward& a) {
  if (tensor::takes(a)) return tensor::launch_on(stream, a);
  const AttentionProblem& p = a.problem;
  const PlainAttention queries = plain_attention(p.sequences * p.heads, p.longest_query, p.head_dim, 3);
  visit_plain(queries, p.q.dtype, [&]<class T, int kRows>(TypeTag<T>, std::integral_constant<int, kRows>) {
    launch_plain(stream, a, queries, query_gradient_kernel<T, kRows>);
  });
  if (a.dk.data == nullptr && a.dv.data == nullptr) return;
  const PlainAttention keys = plain_attention(p.sequences * p.heads, p.longest_key, p.head_dim, 4);
  visit_plain(keys, p.q.dtype, [&]<class T, int kRows>(TypeTag<T>, std::integral_constant<int, kRows>) {
    launch_plain(stream, a, keys, key_gradient_kernel<T, kRows>);
  });
}

}  // namespace twinlens
