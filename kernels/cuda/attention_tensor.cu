// FlashAttention's online softmax (Dao et al. 2022, arXiv:2205.14135) with mma.m16n8k16, in registers: a warp has 16 own rows, the rows of
// the other side lie in shared memory. Backward without atomics: one kernel for dq, whose warps own queries, and one for dk and dv, whose
// warps own keys; scores are computed in both. P and dS are rounded to the type of the inputs; scores and sums are f32.
#include "kernels/cuda/attention_tensor.h"
#include "kernels/cuda/device/attention_head.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/rows.cuh"

namespace twinlens::cuda {
namespace {

constexpr unsigned kAll = 0xFFFFFFFFU;
constexpr float kLog2e = 1.4426950408889634F;
constexpr int kTile = static_cast<int>(TensorAttention::kTile);
constexpr int kMostThreads = static_cast<int>(TensorAttention::kMostWarps) * kWarp;

__device__ float minus_infinity() { return -__int_as_float(0x7F800000); }
__device__ int least(int a, int b) { return a < b ? a : b; }
__device__ int most(int a, int b) { return a > b ? a : b; }

// The sum, or largest, over the four lanes that share a row of a tile.
__device__ float row_sum(float x) {
  x += __shfl_xor_sync(kAll, x, 1);
  return x + __shfl_xor_sync(kAll, x, 2);
}
__device__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAll, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAll, x, 2));
}

// 16 rows of x as the `a` of products over its columns: rows from `first` on, of which there are `count`; zeros elsewhere.
template <class T, int kWidth>
__device__ void load_own(const ConstRows& x, std::int64_t first, int count, std::int64_t column, int d, unsigned (&a)[kWidth / 16][4]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = g + part % 2 * 8, col = step * 16 + part / 2 * 8;
      a[step][part] = 0;
      if (row < count && col < d) a[step][part] = *reinterpret_cast<const unsigned*>(row_of<T>(x, first + row) + column + col + 2 * t);
    }
  }
}

// The sums of 16 rows, row g times low and row g + 8 times high.
template <class T, int kWidth>
__device__ void store_own(const float (&sums)[kWidth / 8][4], float low, float high, const Rows& x, std::int64_t first, int count,
                          std::int64_t column, int d) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
    if (n * 8 >= d) break;
    if (g < count)
      *reinterpret_cast<unsigned*>(row_of<T>(x, first + g) + column + n * 8 + 2 * t) = pack_pair<T>(sums[n][0] * low, sums[n][1] * low);
    if (g + 8 < count)
      *reinterpret_cast<unsigned*>(row_of<T>(x, first + g + 8) + column + n * 8 + 2 * t) =
          pack_pair<T>(sums[n][2] * high, sums[n][3] * high);
  }
}

// A matrix of the other side in shared memory.
template <class T, int kWidth>
struct Others {
  static constexpr int kStride = kWidth + 8;
  T* data;

  // Rows [first, first + rows), of which `count` are real; rows is a multiple of 16.
  __device__ void load(const ConstRows& x, std::int64_t first, int rows, int count, std::int64_t column, int d) const {
    constexpr int kWords = kWidth / 8;
    for (int i = threadIdx.x; i < rows * kWords; i += blockDim.x) {
      const int r = i / kWords, c = i % kWords * 8;
      const bool real = r < count && c < d;
      copy_async(data + r * kStride + c, row_of<T>(x, first + (real ? r : 0)) + column + (real ? c : 0), real);
    }
  }

  // `b` of a product over columns [16 step, 16 step + 16): its 16 columns are the rows from `row` on.
  __device__ void rows(int row, int step, unsigned (&b)[4]) const {
    const TilePlace at = place_of_columns(threadIdx.x % kWarp);
    load_matrices(b, shared_address(data + (row + at.row) * kStride + step * 16 + at.col));
  }
  // `b` of a product over the 16 rows from `row` on: its 16 columns are columns [16 step, 16 step + 16).
  __device__ void columns(int row, int step, unsigned (&b)[4]) const {
    const TilePlace at = place_of_depths(threadIdx.x % kWarp);
    load_matrices_turned(b, shared_address(data + (row + at.row) * kStride + step * 16 + at.col));
  }
};

// sums (16 own rows, 16 rows of the other side) = own times the other's rows.
template <class T, int kWidth>
__device__ void dot_tile(const unsigned (&own)[kWidth / 16][4], const Others<T, kWidth>& other, int row, float (&low)[4],
                         float (&high)[4]) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned b[4];
    other.rows(row, step, b);
    mma<T>(low, own[step], b[0], b[1]);
    mma<T>(high, own[step], b[2], b[3]);
  }
}

// sums (16 own rows, columns) += weights (16 own rows, 16 rows of the other side) times these rows.
template <class T, int kWidth>
__device__ void add_tile(const float (&low)[4], const float (&high)[4], const Others<T, kWidth>& other, int row,
                         float (&sums)[kWidth / 8][4]) {
  const unsigned weights[4] = {pack_pair<T>(low[0], low[1]), pack_pair<T>(low[2], low[3]), pack_pair<T>(high[0], high[1]),
                               pack_pair<T>(high[2], high[3])};
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    unsigned b[4];
    other.columns(row, step, b);
    mma<T>(sums[2 * step], weights, b[0], b[1]);
    mma<T>(sums[2 * step + 1], weights, b[2], b[3]);
  }
}

struct Cut {
  int chunk;
  std::int64_t splits;
};

// Which own tiles the warps of a block take, a round at a time; all warps of a block go through the same rounds.
struct Rounds {
  std::int64_t split, splits;
  int warps, warp, tiles;
  __device__ Rounds(std::int64_t own_rows, const Cut& cut)
      : split(blockIdx.x % cut.splits),
        splits(cut.splits),
        warps(static_cast<int>(blockDim.x) / kWarp),
        warp(static_cast<int>(threadIdx.x) / kWarp),
        tiles(static_cast<int>((own_rows + kTile - 1) / kTile)) {}
  __device__ int first(std::int64_t round) const { return static_cast<int>((round * splits + split) * warps); }  // tile of warp 0
  __device__ int count() const {
    std::int64_t n = 0;
    while (first(n) < tiles) ++n;
    return static_cast<int>(n);
  }
};

__device__ Head head_of_block(const AttentionProblem& p, const Cut& cut, std::int64_t& head) {
  const std::int64_t item = blockIdx.x / cut.splits;
  head = item % p.heads;
  return head_of(p, item / p.heads, head);
}

// --- forward -----------------------------------------------------------------------------------------------------------------------------
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

// --- backward ----------------------------------------------------------------------------------------------------------------------------
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
      if (t == 0 && real) p.scratch[h.lse + i + g + 8 * half] = delta[half];
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
      for (int j = 0; j < end; j += 16 * kGroups) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          const int row = j + 16 * group;
          if (row >= end) break;
          float s[2][4] = {}, slope[2][4] = {};
          dot_tile<T, kWidth>(q, k, row, s[0], s[1]);
          dot_tile<T, kWidth>(dy, v, row, slope[0], slope[1]);
          const bool masked = row + 16 > here || (p.causal && begin + row + 15 > i + offset);
#pragma unroll
          for (int n = 0; n < 2; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              float weight = exp2_fast(s[n][e] * scale - lse[e / 2]);
              if (masked) {
                const int key = begin + row + n * 8 + 2 * t + e % 2, query = i + g + e / 2 * 8;
                if (key >= keys || (p.causal && key > query + offset)) weight = 0.0F;
              }
              slope[n][e] = weight * (slope[n][e] - delta[e / 2]);
            }
          }
          add_tile<T, kWidth>(slope[0], slope[1], k, row, dq);
        }
      }
    }
    if (a.dq.data != nullptr) store_own<T, kWidth>(dq, p.scale, p.scale, a.dq, h.query + i, count, h.column, d);
  }
}

// dk and dv of the warps' keys. Tiles are turned: keys by queries.
template <class T, int kWidth>
__global__ void __launch_bounds__(kMostThreads) key_gradient_kernel(AttentionBackward a, Cut cut) {
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

// --- launch ------------------------------------------------------------------------------------------------------------------------------
std::int64_t shared_limit(const Stream& stream) {
  int bytes = 48 * 1024;
  static_cast<void>(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, stream.device().index));
  return bytes;
}

std::int64_t mean(std::int64_t rows, const AttentionProblem& p) { return p.sequences == 0 ? 0 : ceil_div(rows, p.sequences); }

template <class Args, class Kernel>
void start(Stream& stream, const Args& a, const TensorAttention& t, Kernel kernel) {
  const auto bytes = static_cast<int>(t.shared_bytes);
  if (bytes > 48 * 1024) static_cast<void>(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const std::int64_t blocks = a.problem.sequences * a.problem.heads * t.splits;
  if (blocks == 0) return;
  kernel<<<static_cast<unsigned>(blocks), t.warps * kWarp, static_cast<std::size_t>(bytes), native(stream)>>>(
      a, Cut{static_cast<int>(t.chunk), t.splits});
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

bool problem_fits(const AttentionProblem& p) {
  constexpr std::int64_t kMostRows = std::int64_t{1} << 30;
  return p.q.dtype != DType::f32 && p.head_dim % 8 == 0 && tensor_width(p.head_dim) != 0 && p.bias == nullptr && p.scale > 0.0F &&
         p.longest_query < kMostRows && p.longest_key < kMostRows && rows_fit(p.q, p) && rows_fit(p.k, p) && rows_fit(p.v, p);
}

}  // namespace

bool tensor_takes(const AttentionForward& a) { return problem_fits(a.problem) && rows_fit(a.y, a.problem); }

bool tensor_takes(const AttentionBackward& a) {
  const AttentionProblem& p = a.problem;
  return problem_fits(p) && rows_fit(a.y, p) && rows_fit(a.dy, p) && rows_fit(a.dq, p) && rows_fit(a.dk, p) && rows_fit(a.dv, p);
}

void launch_tensor(Stream& stream, const AttentionForward& a) {
  const AttentionProblem& p = a.problem;
  const TensorAttention t = tensor_attention(mean(p.q.rows, p), p.longest_query, p.longest_key, p.head_dim, shared_limit(stream));
  visit_tensor(p.q.dtype, t.width, [&]<class T, int kWidth>(TypeTag<T>, std::integral_constant<int, kWidth>) {
    start(stream, a, t, forward_kernel<T, kWidth>);
  });
}

void launch_tensor(Stream& stream, const AttentionBackward& a) {
  const AttentionProblem& p = a.problem;
  const TensorAttention queries = tensor_attention(mean(p.q.rows, p), p.longest_query, p.longest_key, p.head_dim, shared_limit(stream));
  const TensorAttention keys = tensor_attention(mean(p.k.rows, p), p.longest_key, p.longest_query, p.head_dim, shared_limit(stream));
  visit_tensor(p.q.dtype, queries.width, [&]<class T, int kWidth>(TypeTag<T>, std::integral_constant<int, kWidth>) {
    start(stream, a, queries, query_gradient_kernel<T, kWidth>);
    if (a.dk.data != nullptr || a.dv.data != nullptr) start(stream, a, keys, key_gradient_kernel<T, kWidth>);
  });
}

}  // namespace twinlens::cuda
