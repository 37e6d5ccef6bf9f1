#pragma once
// Backward without atomics: one kernel for dq, whose warps own queries, and one for dk and dv, whose warps own keys; scores are computed in
// both. P and dS are rounded to the type of the inputs; scores and sums are f32.

#include "kernels/cuda/device/attention_tile.cuh"

namespace twinlens::cuda::tensor {

// The product of the rows of two tiles of own rows: of dy and y, delta of row g and of row g + 8.
template <class T, int kWidth>
__device__ void row_products(const unsigned (&x)[kWidth / 16][4], const unsigned (&y)[kWidth / 16][4], float (&sums)[2]) {
  sums[0] = sums[1] = 0.0F;
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const unsigned u = x[step][part], w = y[step][part];
      sums[part % 2] += to_float(T{static_cast<std::uint16_t>(u)}) * to_float(T{static_cast<std::uint16_t>(w)}) +
                        to_float(T{static_cast<std::uint16_t>(u >> 16)}) * to_float(T{static_cast<std::uint16_t>(w >> 16)});
    }
  }
  sums[0] = row_sum(sums[0]);
  sums[1] = row_sum(sums[1]);
}

// Which keys a query of the sequence sees.
struct Sight {
  int keys, offset;
  bool causal;
};

// Scores (16 queries from `query` on, 16 keys from `key` on) to P. `scale` and lse are in units of log2(e).
__device__ inline void to_weights(float (&s)[2][4], float scale, const float (&lse)[2], int query, int key, const Sight& sight) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const bool masked = key + 16 > sight.keys || (sight.causal && key + 15 > query + sight.offset);
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = key + n * 8 + 2 * t + e % 2, row = query + g + e / 2 * 8;
      s[n][e] = exp2_fast(s[n][e] * scale - lse[e / 2]);
      if (masked && (column >= sight.keys || (sight.causal && column > row + sight.offset))) s[n][e] = 0.0F;
    }
  }
}

// Queries that see no more keys than this get delta from P and dP instead of from y: with few keys y is hardly an average, so that its
// rounding tells in delta, and the keys' gradients add that up over the first queries of every causal sequence. The price is small there.
inline constexpr int kFewKeys = 32;

template <class T, int kWidth>
__device__ void delta_of_few(const unsigned (&q)[kWidth / 16][4], const unsigned (&dy)[kWidth / 16][4], const Others<T, kWidth>& k,
                             const Others<T, kWidth>& v, float scale, const float (&lse)[2], int query, int seen, const Sight& sight,
                             float (&delta)[2]) {
  delta[0] = delta[1] = 0.0F;
  for (int row = 0; row < seen; row += 16) {
    float s[2][4] = {}, slope[2][4] = {};
    dot_tile<T, kWidth>(q, k, row, s[0], s[1]);
    dot_tile<T, kWidth>(dy, v, row, slope[0], slope[1]);
    to_weights(s, scale, lse, query, row, sight);
#pragma unroll
    for (int e = 0; e < 4; ++e) delta[e / 2] += s[0][e] * slope[0][e] + s[1][e] * slope[1][e];
  }
  delta[0] = row_sum(delta[0]);
  delta[1] = row_sum(delta[1]);
}

// dq of the warps' queries, and delta of each.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads) query_gradient_kernel(AttentionBackward a, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kGroups = 2;
  const AttentionProblem& p = a.problem;
  std::int64_t head = 0;
  const Head h = head_of_block(p, cut, head);
  const Rounds rounds(h.queries, cut);
  const int d = static_cast<int>(p.head_dim), keys = static_cast<int>(h.keys), queries = static_cast<int>(h.queries);
  const int offset = keys - queries, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const Others<T, kWidth> k{reinterpret_cast<T*>(shared)}, v{k.data + cut.chunk * Others<T, kWidth>::kStride};
  const float scale = p.scale * kLog2e;
  const Sight sight{keys, offset, p.causal};
  const int round_count = rounds.count();
  int loaded = -1;  // where the chunk in shared memory begins
  for (int round = 0; round < round_count; ++round) {
    const int tile = rounds.first(round) + rounds.warp, i = tile * kTile, count = most(0, least(kTile, queries - i));
    const int seen = count == 0 ? 0 : p.causal ? most(0, least(keys, i + count + offset)) : keys;
    const int last = least(queries, (rounds.first(round) + rounds.warps) * kTile);
    const int needed = a.dq.data == nullptr ? 0 : p.causal ? most(0, least(keys, last + offset)) : keys;
    unsigned q[kWidth / 16][4], dy[kWidth / 16][4];
    float delta[2], lse[2];
    load_own<T, kWidth>(a.y, h.query + i, count, h.column, d, q);  // y, for delta
    load_own<T, kWidth>(a.dy, h.query + i, count, h.column, d, dy);
    row_products<T, kWidth>(dy, q, delta);
    load_own<T, kWidth>(p.q, h.query + i, count, h.column, d, q);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool real = g + 8 * half < count;
      lse[half] = real ? a.lse[h.lse + i + g + 8 * half] * kLog2e : 0.0F;
    }
    float dq[kWidth / 8][4] = {};
    for (int begin = 0; begin < needed; begin += cut.chunk) {
      const int here = least(cut.chunk, keys - begin);
      if (loaded != begin) {
        loaded = begin;
        __syncthreads();  // the last chunk may still be read
        k.load(p.k, h.key + begin, (here + 15) / 16 * 16, here, h.column, d);
        v.load(p.v, h.key + begin, (here + 15) / 16 * 16, here, h.column, d);
        wait_for_copies();
        __syncthreads();
      }
      const int end = least(here, seen - begin);
      if (begin == 0 && seen <= kFewKeys) delta_of_few<T, kWidth>(q, dy, k, v, scale, lse, i, seen, sight, delta);
      for (int j = 0; j < end; j += 16 * kGroups) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const int row = j + 16 * group;
          if (row >= end) break;
          float s[2][4] = {}, slope[2][4] = {};
          dot_tile<T, kWidth>(q, k, row, s[0], s[1]);
          dot_tile<T, kWidth>(dy, v, row, slope[0], slope[1]);
          to_weights(s, scale, lse, i, begin + row, sight);
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            slope[0][e] = s[0][e] * (slope[0][e] - delta[e / 2]);
            slope[1][e] = s[1][e] * (slope[1][e] - delta[e / 2]);
          }
          add_tile<T, kWidth>(slope[0], slope[1], k, row, dq);
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (t == 0 && g + 8 * half < count) p.scratch[h.lse + i + g + 8 * half] = delta[half];
    }
    if (a.dq.data != nullptr) store_own<T, kWidth>(dq, p.scale, p.scale, a.dq, h.query + i, count, h.column, d);
  }
}

// dk and dv of the warps' keys. Tiles are turned: keys by queries. Heads of 64 columns keep to 128 registers (14 of them spill), so that
// two blocks share a multiprocessor: with one, seven warps have nothing to do while a block's rows come.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads, kWidth == 64 ? 2 : 1) key_gradient_kernel(AttentionBackward a, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  const AttentionProblem& p = a.problem;
  std::int64_t head = 0;
  const Head h = head_of_block(p, cut, head);
  const Rounds rounds(h.keys, cut);
  const int d = static_cast<int>(p.head_dim), keys = static_cast<int>(h.keys), queries = static_cast<int>(h.queries);
  const int offset = keys - queries, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const Others<T, kWidth> q{reinterpret_cast<T*>(shared)}, dy{q.data + cut.chunk * Others<T, kWidth>::kStride};
  float* lse = reinterpret_cast<float*>(dy.data + cut.chunk * Others<T, kWidth>::kStride);
  float* delta = lse + cut.chunk;
  const float scale = p.scale * kLog2e;
  const int round_count = rounds.count();
  int loaded = -1;  // where the chunk in shared memory begins
  for (int round = 0; round < round_count; ++round) {
    const int tile = rounds.first(round) + rounds.warp, i = tile * kTile, count = most(0, least(kTile, keys - i));
    unsigned k[kWidth / 16][4], v[kWidth / 16][4];
    load_own<T, kWidth>(p.k, h.key + i, count, h.column, d, k);
    load_own<T, kWidth>(p.v, h.key + i, count, h.column, d, v);
    float dk[kWidth / 8][4] = {}, dv[kWidth / 8][4] = {};
    for (int begin = 0; begin < queries; begin += cut.chunk) {
      const int here = least(cut.chunk, queries - begin), rows = (here + 15) / 16 * 16;
      if (loaded != begin) {
        loaded = begin;
        __syncthreads();  // the last chunk may still be read
        q.load(p.q, h.query + begin, rows, here, h.column, d);
        dy.load(a.dy, h.query + begin, rows, here, h.column, d);
        for (int r = threadIdx.x; r < rows; r += blockDim.x) {
          lse[r] = r < here ? a.lse[h.lse + begin + r] * kLog2e : 0.0F;
          delta[r] = r < here ? p.scratch[h.lse + begin + r] : 0.0F;
        }
        wait_for_copies();
        __syncthreads();
      }
      if (count == 0) continue;
      // The first query that sees the tile's first key, in whole groups of 16.
      const int first = p.causal ? most(0, i - offset - begin) / 16 * 16 : 0;
      for (int row = first; row < here; row += 16) {
        float s[2][4] = {}, slope[2][4] = {};
        dot_tile<T, kWidth>(k, q, row, s[0], s[1]);
        dot_tile<T, kWidth>(v, dy, row, slope[0], slope[1]);
        const bool masked = row + 16 > here || i + kTile > keys || (p.causal && i + kTile - 1 > begin + row + offset);
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int at = row + n * 8 + 2 * t + e % 2;
            float weight = exp2_fast(s[n][e] * scale - lse[at]);
            if (masked) {
              const int query = begin + at, key = i + g + e / 2 * 8;
              if (query >= queries || key >= keys || (p.causal && key > query + offset)) weight = 0.0F;
            }
            s[n][e] = weight;
            slope[n][e] = weight * (slope[n][e] - delta[at]);
          }
        }
        add_tile<T, kWidth>(s[0], s[1], dy, row, dv);
        add_tile<T, kWidth>(slope[0], slope[1], q, row, dk);
      }
    }
    if (a.dk.data != nullptr) store_own<T, kWidth>(dk, p.scale, p.scale, a.dk, h.key + i, count, h.column, d);
    if (a.dv.data != nullptr) store_own<T, kWidth>(dv, 1.0F, 1.0F, a.dv, h.key + i, count, h.column, d);
  }
}

}  // namespace twinlens::cuda::tensor
