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

// Scores (16 queries from `query` on, 16 keys from `key` on) to P; all see all if kWhole. `scale` and lse are in units of log2(e).
template <bool kWhole>
__device__ __forceinline__ void to_weights(float (&s)[2][4], float scale, const float (&lse)[2], int query, int key, const Sight& sight) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const bool masked = !kWhole && sight.cuts(query, key);
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[n][e] = exp2_fast(s[n][e] * scale - lse[e / 2]);
      if (masked && sight.hides(query + g + e / 2 * 8, key + n * 8 + 2 * t + e % 2)) s[n][e] = 0.0F;
    }
  }
}

// The queries of a warp.
template <int kWidth, int kTiles>
struct QueryGradients {
  unsigned q[kTiles][kWidth / 16][4], dy[kTiles][kWidth / 16][4];
  float dq[kTiles][kWidth / 8][4], delta[kTiles][2], lse[kTiles][2];
};

// Queries that see no more keys than this get delta from P and dP instead of from y: with few keys y is hardly an average, so that its
// rounding tells in delta, and the keys' gradients add that up over the first queries of every causal sequence. The price is small there.
inline constexpr int kFewKeys = 32;

// Of tile r, whose queries begin with `query`.
template <int r, class T, int kWidth, int kTiles>
__device__ __forceinline__ void delta_of_few(QueryGradients<kWidth, kTiles>& own, const Others<T, kWidth>& k, const Others<T, kWidth>& v,
                                             float scale, int query, int seen, const Sight& sight) {
  float delta[2] = {0.0F, 0.0F};
  for (int row = 0; row < seen; row += 16) {
    float s[kTiles][2][4], slope[kTiles][2][4];
    dot_tiles<T, kWidth, r, r + 1>(own.q, k, row, s, 0);
    dot_tiles<T, kWidth, r, r + 1>(own.dy, v, row, slope, 0);
    to_weights<false>(s[r], scale, own.lse[r], query, row, sight);
#pragma unroll
    for (int e = 0; e < 4; ++e) delta[e / 2] += s[r][0][e] * slope[r][0][e] + s[r][1][e] * slope[r][1][e];
  }
  own.delta[r][0] = row_sum(delta[0]);
  own.delta[r][1] = row_sum(delta[1]);
}

// Tiles [kFirst, kEnd) of queries, the warp's from `query` on, meet 16 keys, `key` and behind, in this row of the chunk; all see all if
// kWhole.
template <bool kWhole, int kFirst, int kEnd, class T, int kWidth, int kTiles>
__device__ __forceinline__ void add_query_gradients(QueryGradients<kWidth, kTiles>& own, const Others<T, kWidth>& k,
                                                    const Others<T, kWidth>& v, int row, float scale, int query, int key,
                                                    const Sight& sight) {
  float s[kTiles][2][4], slope[kTiles][2][4];
  dot_tiles<T, kWidth, kFirst, kEnd>(own.q, k, row, s, 0);
  dot_tiles<T, kWidth, kFirst, kEnd>(own.dy, v, row, slope, 0);
#pragma unroll
  for (int r = kFirst; r < kEnd; ++r) {
    to_weights<kWhole>(s[r], scale, own.lse[r], query + r * kTile, key, sight);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      slope[r][0][e] = s[r][0][e] * (slope[r][0][e] - own.delta[r][e / 2]);
      slope[r][1][e] = s[r][1][e] * (slope[r][1][e] - own.delta[r][e / 2]);
    }
  }
  add_tiles<T, kWidth, kFirst, kEnd>(slope, 0, k, row, own.dq);
}

// dq of the warps' queries, and delta of each.
template <class T, int kWidth, int kTiles>
__global__ void __launch_bounds__(kMostThreads, kLeastBlocks<kWidth, kTiles>) query_gradient_kernel(AttentionBackward a, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  const AttentionProblem& p = a.problem;
  const Head h = head_of_block(p, cut);
  const Rounds<kTiles> rounds(h.queries, cut);
  const int d = static_cast<int>(p.head_dim), keys = static_cast<int>(h.keys), lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const Sight sight{keys, keys - static_cast<int>(h.queries), p.causal};
  const Others<T, kWidth> k{reinterpret_cast<T*>(shared)}, v{k.data + cut.chunk * Others<T, kWidth>::kStride};
  const float scale = p.scale * kLog2e;
  const int round_count = rounds.count();
  int loaded = -1;  // where the chunk in shared memory begins
  for (int round = 0; round < round_count; ++round) {
    const int i = rounds.first(round), needed = a.dq.data == nullptr ? 0 : sight.seen(0, rounds.end_of_block(round));
    QueryGradients<kWidth, kTiles> own;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int first = i + r * kTile, count = rounds.rows(round, r);
      load_own<T, kWidth>(a.y, h.query + first, count, h.column, d, own.q[r]);  // y, for delta
      load_own<T, kWidth>(a.dy, h.query + first, count, h.column, d, own.dy[r]);
      row_products<T, kWidth>(own.dy[r], own.q[r], own.delta[r]);
      load_own<T, kWidth>(p.q, h.query + first, count, h.column, d, own.q[r]);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        own.lse[r][half] = g + 8 * half < count ? a.lse[h.lse + first + g + 8 * half] * kLog2e : 0.0F;
      }
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) own.dq[r][n][e] = 0.0F;
      }
    }
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
      int row = 0;
      const int tiles = rounds.rows(round, kTiles - 1) > 0 ? kTiles : 1,
                all = least(here, sight.seen(i, least(1, rounds.rows(round, 0))) - begin);
      each_tile<kTiles>([&](auto tile) {
        constexpr int r = decltype(tile)::value;
        const int query = i + r * kTile, seen = sight.seen(query, rounds.rows(round, r));
        if (begin == 0 && seen <= kFewKeys) delta_of_few<r>(own, k, v, scale, query, seen, sight);
      });
      if (tiles == kTiles) {
        for (; row + 16 <= all; row += 16) add_query_gradients<true, 0, kTiles>(own, k, v, row, scale, i, begin + row, sight);
      } else {
        for (; row + 16 <= all; row += 16) add_query_gradients<true, 0, 1>(own, k, v, row, scale, i, begin + row, sight);
      }
      each_tile<kTiles>([&](auto tile) {
        constexpr int r = decltype(tile)::value;
        const int end = least(here, sight.seen(i + r * kTile, rounds.rows(round, r)) - begin);
        for (int edge = row; edge < end; edge += 16) add_query_gradients<false, r, r + 1>(own, k, v, edge, scale, i, begin + edge, sight);
      });
    }
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int first = i + r * kTile, count = rounds.rows(round, r);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (t == 0 && g + 8 * half < count) p.scratch[h.lse + first + g + 8 * half] = own.delta[r][half];
      }
      if (a.dq.data != nullptr) store_own<T, kWidth>(own.dq[r], p.scale, p.scale, a.dq, h.query + first, count, h.column, d);
    }
  }
}

// The keys of a warp.
template <int kWidth, int kTiles>
struct KeyGradients {
  unsigned k[kTiles][kWidth / 16][4], v[kTiles][kWidth / 16][4];
  float dk[kTiles][kWidth / 8][4], dv[kTiles][kWidth / 8][4];
};

// Tiles [kFirst, kEnd) of keys, the warp's from `key` on, meet 16 queries, `query` and behind, of `queries` that there are, in this row of
// the chunk, where lse and delta lie beside them; all see all if kWhole.
template <bool kWhole, int kFirst, int kEnd, class T, int kWidth, int kTiles>
__device__ __forceinline__ void add_key_gradients(KeyGradients<kWidth, kTiles>& own, const Others<T, kWidth>& q,
                                                  const Others<T, kWidth>& dy, const float* lse, const float* delta, int row, float scale,
                                                  int key, int query, int queries, const Sight& sight) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  float s[kTiles][2][4], slope[kTiles][2][4];
  dot_tiles<T, kWidth, kFirst, kEnd>(own.k, q, row, s, 0);
  dot_tiles<T, kWidth, kFirst, kEnd>(own.v, dy, row, slope, 0);
  // Of queries 2 t, 2 t + 1 of every 8; rows are whole groups of 16, so that pairs are words.
  float2 lses[2], deltas[2];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    lses[n] = reinterpret_cast<const float2*>(lse + row)[n * 4 + t];
    deltas[n] = reinterpret_cast<const float2*>(delta + row)[n * 4 + t];
  }
#pragma unroll
  for (int r = kFirst; r < kEnd; ++r) {
    const int first = key + r * kTile;
    const bool masked = !kWhole && (query + 16 > queries || sight.cuts(query, first));
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int at = query + n * 8 + 2 * t + e % 2;
        float weight = exp2_fast(s[r][n][e] * scale - (e % 2 == 0 ? lses[n].x : lses[n].y));
        if (masked && (at >= queries || sight.hides(at, first + g + e / 2 * 8))) weight = 0.0F;
        s[r][n][e] = weight;
        slope[r][n][e] = weight * (slope[r][n][e] - (e % 2 == 0 ? deltas[n].x : deltas[n].y));
      }
    }
  }
  add_tiles<T, kWidth, kFirst, kEnd>(s, 0, dy, row, own.dv);
  add_tiles<T, kWidth, kFirst, kEnd>(slope, 0, q, row, own.dk);
}

// dk and dv of the warps' keys. Tiles are turned: keys by queries.
template <class T, int kWidth, int kTiles>
__global__ void __launch_bounds__(kMostThreads, kLeastBlocks<kWidth, kTiles>) key_gradient_kernel(AttentionBackward a, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  const AttentionProblem& p = a.problem;
  const Head h = head_of_block(p, cut);
  const Rounds<kTiles> rounds(h.keys, cut);
  const int d = static_cast<int>(p.head_dim), keys = static_cast<int>(h.keys), queries = static_cast<int>(h.queries);
  const Sight sight{keys, keys - queries, p.causal};
  const Others<T, kWidth> q{reinterpret_cast<T*>(shared)}, dy{q.data + cut.chunk * Others<T, kWidth>::kStride};
  float* lse = reinterpret_cast<float*>(dy.data + cut.chunk * Others<T, kWidth>::kStride);
  float* delta = lse + cut.chunk;
  const float scale = p.scale * kLog2e;
  const int round_count = rounds.count();
  int loaded = -1;  // where the chunk in shared memory begins
  for (int round = 0; round < round_count; ++round) {
    const int i = rounds.first(round);
    KeyGradients<kWidth, kTiles> own;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      load_own<T, kWidth>(p.k, h.key + i + r * kTile, rounds.rows(round, r), h.column, d, own.k[r]);
      load_own<T, kWidth>(p.v, h.key + i + r * kTile, rounds.rows(round, r), h.column, d, own.v[r]);
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) own.dk[r][n][e] = own.dv[r][n][e] = 0.0F;
      }
    }
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
      const int tiles = rounds.rows(round, kTiles - 1) > 0 ? kTiles : rounds.rows(round, 0) > 0 ? 1 : 0;
      if (tiles == 0) continue;
      // In whole groups of 16: the first queries that see the first of these keys.
      const auto first_that_sees = [&](int key) { return p.causal ? least(here, most(0, key - sight.offset - begin) / 16 * 16) : 0; };
      // From here on queries see all keys of the warp. (Sums of a key that is not there are not stored.)
      const int whole = p.causal ? least(here, (most(0, i + tiles * kTile - 1 - sight.offset - begin) + 15) / 16 * 16) : 0;
      const int rest = most(whole, here / 16 * 16);
      each_tile<kTiles>([&](auto tile) {
        constexpr int r = decltype(tile)::value;
        if (r >= tiles) return;
        for (int row = first_that_sees(i + r * kTile); row < whole; row += 16)
          add_key_gradients<false, r, r + 1>(own, q, dy, lse, delta, row, scale, i, begin + row, queries, sight);
      });
      if (tiles == kTiles) {
        for (int row = whole; row < rest; row += 16)
          add_key_gradients<true, 0, kTiles>(own, q, dy, lse, delta, row, scale, i, begin + row, queries, sight);
      } else {
        for (int row = whole; row < rest; row += 16)
          add_key_gradients<true, 0, 1>(own, q, dy, lse, delta, row, scale, i, begin + row, queries, sight);
      }
      if (rest < here) {
        each_tile<kTiles>([&](auto tile) {
          constexpr int r = decltype(tile)::value;
          if (r < tiles) add_key_gradients<false, r, r + 1>(own, q, dy, lse, delta, rest, scale, i, begin + rest, queries, sight);
        });
      }
    }
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int first = i + r * kTile, count = rounds.rows(round, r);
      if (a.dk.data != nullptr) store_own<T, kWidth>(own.dk[r], p.scale, p.scale, a.dk, h.key + first, count, h.column, d);
      if (a.dv.data != nullptr) store_own<T, kWidth>(own.dv[r], 1.0F, 1.0F, a.dv, h.key + first, count, h.column, d);
    }
  }
}

}  // namespace twinlens::cuda::tensor
