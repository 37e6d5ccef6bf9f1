#pragma once
// FlashAttention's online softmax (Dao et al. 2022, arXiv:2205.14135) with mma.m16n8k16, in registers. Weights are rounded to the type of
// the inputs; scores and sums are f32.

#include "kernels/cuda/device/attention_tile.cuh"

namespace twinlens::cuda::tensor {

// Two rows of a lane (g and g + 8): largest score, and this lane's share of the sum of weights.
struct Softmax {
  float largest[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0F, 0.0F};
};

// Scores of one tile and kGroups x 16 keys, of which the first `live` groups are there, to weights, the sums so far rescaled. `scale` is
// that of the problem times log2(e).
template <int kGroups, int kWidth>
__device__ __forceinline__ void weigh(float (&s)[2 * kGroups][4], int live, float scale, Softmax& softmax, float (&out)[kWidth / 8][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = softmax.largest[half];
#pragma unroll
    for (int n = 0; n < 2 * kGroups; ++n) {
      if (n / 2 < live) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    }
    top = row_max(top);
    const float shift = top < -3e38F ? 0.0F : top * scale;
    const float factor = exp2_fast(softmax.largest[half] * scale - shift);
    float sum = 0.0F;
#pragma unroll
    for (int n = 0; n < 2 * kGroups; ++n) {
      if (n / 2 < live) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[n][e] = exp2_fast(s[n][e] * scale - shift);
          sum += s[n][e];
        }
      }
    }
    softmax.sum[half] = softmax.sum[half] * factor + sum;
    softmax.largest[half] = top;
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      out[n][2 * half] *= factor;
      out[n][2 * half + 1] *= factor;
    }
  }
}

// The queries of a warp.
template <int kWidth, int kTiles>
struct Queries {
  unsigned q[kTiles][kWidth / 16][4];
  float out[kTiles][kWidth / 8][4];
  Softmax softmax[kTiles];
};

// Tiles [kFirst, kEnd) meet kGroups x 16 keys, in row j of the chunk and behind. All queries see all of these keys if kWhole; else groups
// from row `end` on are left out, and the tile of queries from `query` on sees what it may of the rest, which begin with `key`.
template <bool kWhole, int kFirst, int kEnd, int kGroups, class T, int kWidth, int kTiles>
__device__ __forceinline__ void meet_keys(Queries<kWidth, kTiles>& own, const Others<T, kWidth>& k, const Others<T, kWidth>& v, int j,
                                          int end, float scale, int query, int key, const Sight& sight) {
  static_assert(kWhole || kEnd == kFirst + 1);
  const int live = kWhole ? kGroups : (end - j + 15) / 16;
  float s[kTiles][2 * kGroups][4];
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    if (!kWhole && group >= live) break;
    dot_tiles<T, kWidth, kFirst, kEnd>(own.q, k, j + 16 * group, s, 2 * group);
    if (!kWhole && sight.cuts(query, key + 16 * group)) {
      const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
      for (int n = 2 * group; n < 2 * group + 2; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (sight.hides(query + g + e / 2 * 8, key + n * 8 + 2 * t + e % 2)) s[kFirst][n][e] = minus_infinity();
        }
      }
    }
  }
#pragma unroll
  for (int r = kFirst; r < kEnd; ++r) weigh<kGroups, kWidth>(s[r], live, scale, own.softmax[r], own.out[r]);
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    if (!kWhole && group >= live) break;
    add_tiles<T, kWidth, kFirst, kEnd>(s, 2 * group, v, j + 16 * group, own.out);
  }
}

template <class T, int kWidth, int kTiles>
__global__ void __launch_bounds__(kMostThreads, kLeastBlocks<kWidth, kTiles>) forward_kernel(AttentionForward a, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kGroups = 4, kKeys = 16 * kGroups;
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
    const int i = rounds.first(round), needed = sight.seen(0, rounds.end_of_block(round));
    Queries<kWidth, kTiles> own;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      load_own<T, kWidth>(p.q, h.query + i + r * kTile, rounds.rows(round, r), h.column, d, own.q[r]);
      own.softmax[r] = Softmax{};
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) own.out[r][n][e] = 0.0F;
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
      const int tiles = rounds.rows(round, kTiles - 1) > 0 ? kTiles : 1, first_sees = sight.seen(i, least(1, rounds.rows(round, 0)));
      const int all = least(here, first_sees - begin);  // keys of the chunk that all queries see
      int j = 0;
      if (tiles == kTiles) {
        for (; j + kKeys <= all; j += kKeys) meet_keys<true, 0, kTiles, kGroups>(own, k, v, j, all, scale, i, begin + j, sight);
      } else {
        for (; j + kKeys <= all; j += kKeys) meet_keys<true, 0, 1, kGroups>(own, k, v, j, all, scale, i, begin + j, sight);
      }
      each_tile<kTiles>([&](auto tile) {
        constexpr int r = decltype(tile)::value;
        const int query = i + r * kTile, end = least(here, sight.seen(query, rounds.rows(round, r)) - begin);
        for (int edge = j; edge < end; edge += kKeys)
          meet_keys<false, r, r + 1, kGroups>(own, k, v, edge, end, scale, query, begin + edge, sight);
      });
    }
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int first = i + r * kTile, count = rounds.rows(round, r);
      const Softmax& softmax = own.softmax[r];
      float inverse[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float sum = row_sum(softmax.sum[half]);
        inverse[half] = sum == 0.0F ? 0.0F : 1.0F / sum;
        if (t == 0 && g + 8 * half < count)
          a.lse[h.lse + first + g + 8 * half] = sum == 0.0F ? 0.0F : softmax.largest[half] * p.scale + logf(sum);
      }
      store_own<T, kWidth>(own.out[r], inverse[0], inverse[1], a.y, h.query + first, count, h.column, d);
    }
  }
}

}  // namespace twinlens::cuda::tensor
