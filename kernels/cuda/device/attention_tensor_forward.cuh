#pragma once
// FlashAttention's online softmax (Dao et al. 2022, arXiv:2205.14135) with mma.m16n8k16, in registers. Weights are rounded to the type of
// the inputs; scores and sums are f32.

#include "kernels/cuda/device/attention_tile.cuh"

namespace twinlens::cuda::tensor {

// Two rows of a lane (g and g + 8): largest score, and this lane's share of the sum of weights.
struct Softmax {
  float largest[2] = {minus_infinity(), minus_infinity()}, sum[2] = {0.0F, 0.0F};
};

// Scores of kGroups x 16 keys to weights, the sums so far rescaled. `scale` is that of the problem times log2(e).
template <int kGroups, int kWidth>
__device__ void weigh(float (&s)[2 * kGroups][4], float scale, Softmax& softmax, float (&out)[kWidth / 8][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = softmax.largest[half];
#pragma unroll
    for (int n = 0; n < 2 * kGroups; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    top = row_max(top);
    const float shift = top < -3e38F ? 0.0F : top * scale;
    const float factor = exp2_fast(softmax.largest[half] * scale - shift);
    float sum = 0.0F;
#pragma unroll
    for (int n = 0; n < 2 * kGroups; ++n) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        s[n][e] = exp2_fast(s[n][e] * scale - shift);
        sum += s[n][e];
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

template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads) forward_kernel(AttentionForward a, Cut cut) {
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int kGroups = 4;
  const AttentionProblem& p = a.problem;
  std::int64_t head = 0;
  const Head h = head_of_block(p, cut, head);
  const Rounds rounds(h.queries, cut);
  const int d = static_cast<int>(p.head_dim), keys = static_cast<int>(h.keys), queries = static_cast<int>(h.queries);
  const int offset = keys - queries, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const Others<T, kWidth> k{reinterpret_cast<T*>(shared)}, v{k.data + cut.chunk * Others<T, kWidth>::kStride};
  const float scale = p.scale * kLog2e;
  const int round_count = rounds.count();
  int loaded = -1;  // where the chunk in shared memory begins
  for (int round = 0; round < round_count; ++round) {
    const int tile = rounds.first(round) + rounds.warp, i = tile * kTile, count = most(0, least(kTile, queries - i));
    // Keys that the last query of the tile sees, and of the last tile of the block.
    const int seen = count == 0 ? 0 : p.causal ? most(0, least(keys, i + count + offset)) : keys;
    const int last = least(queries, (rounds.first(round) + rounds.warps) * kTile);
    const int needed = p.causal ? most(0, least(keys, last + offset)) : keys;
    unsigned q[kWidth / 16][4];
    load_own<T, kWidth>(p.q, h.query + i, count, h.column, d, q);
    float out[kWidth / 8][4] = {};
    Softmax softmax;
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
      for (int j = 0; j < end; j += 16 * kGroups) {
        float s[2 * kGroups][4];
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          float(&low)[4] = s[2 * group], (&high)[4] = s[2 * group + 1];
#pragma unroll
          for (int e = 0; e < 4; ++e) low[e] = high[e] = j + 16 * group < end ? 0.0F : minus_infinity();
          if (j + 16 * group < end) dot_tile<T, kWidth>(q, k, j + 16 * group, low, high);
        }
        if (j + 16 * kGroups > here || (p.causal && begin + j + 16 * kGroups - 1 > i + offset)) {
#pragma unroll
          for (int n = 0; n < 2 * kGroups; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const int key = begin + j + n * 8 + 2 * t + e % 2, query = i + g + e / 2 * 8;
              if (key >= keys || (p.causal && key > query + offset)) s[n][e] = minus_infinity();
            }
          }
        }
        weigh<kGroups, kWidth>(s, scale, softmax, out);
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          if (j + 16 * group < end) add_tile<T, kWidth>(s[2 * group], s[2 * group + 1], v, j + 16 * group, out);
        }
      }
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(softmax.sum[half]);
      inverse[half] = sum == 0.0F ? 0.0F : 1.0F / sum;
      if (t == 0 && g + 8 * half < count)
        a.lse[h.lse + i + g + 8 * half] = sum == 0.0F ? 0.0F : softmax.largest[half] * p.scale + logf(sum);
    }
    store_own<T, kWidth>(out, inverse[0], inverse[1], a.y, h.query + i, count, h.column, d);
  }
}

}  // namespace twinlens::cuda::tensor
