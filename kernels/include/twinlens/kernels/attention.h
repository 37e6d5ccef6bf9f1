#pragma once
// Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762) over ragged sequences, per sequence and head:
//   S = scale Q K^T + bias,   P = softmax over keys of S,   Y = P V,   lse_i = log sum_j exp S_ij.
// Backward from q, k, v and lse alone, with P = exp(S - lse) recomputed:
//   dP = dY V^T,   delta_i = sum_j P_ij dP_ij,   dS = P (dP - delta),
//   dQ = scale dS K,   dK = scale dS^T Q,   dV = P^T dY.
// Scores live in one tile of (keys of a block) x (queries of a block) per thread: keys are blocked with an online softmax as in
// FlashAttention (Dao et al. 2022, arXiv:2205.14135), but the block is chosen so that CLIP's sequences are one block.
//
// With avx512bf16 and avx512amx, bf16 heads that suit (suits_tiles) are computed by products of bf16 pairs, with P and dS rounded to bf16
// as factors; the softmax and all sums are f32. With TWINLENS_MAX_ISA=avx512, and with every other set, all of it is f32.
//
// On CUDA, bf16 and f16 heads of up to 128 columns whose rows start at 16 bytes are computed on tensor cores with P and dS rounded to
// that type; everything else by a plain kernel in f32.
//
// A query that sees no key gets y = 0, lse = 0 and no gradient.

#include "twinlens/kernels/isa.h"
#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct AttentionProblem {
  ConstRows q, k, v;                  // (Nq, H*D), (Nk, H*D), (Nk, H*D) of one float type; rows may be strided
  const std::int64_t* query_offsets;  // (S + 1)
  const std::int64_t* key_offsets;    // (S + 1)
  std::int64_t sequences, heads, head_dim;
  std::int64_t longest_query, longest_key;  // of any sequence; scratch is sized by them
  bool causal;                              // query i of Tq sees keys j <= i + Tk - Tq
  const float* bias;                        // (bias_heads, Tq, Tk) or null; lengths are equal then
  std::int64_t bias_heads;                  // H or 1
  float scale;
  float* scratch;      // slots * scratch_floats(args); on CUDA cuda_scratch_floats(args)
  std::int64_t slots;  // threads that may work at once
  // For studies on CUDA: tiles of 16 rows, 1 or 2, that a warp has in heads of up to 64 columns on tensor cores; 0: what suits the lengths
  // (kernels/cuda/geometry.h). Results are equal to the bit.
  int row_tiles = 0;
  // For studies on the CPU: whether scores of the few queries that would leave most of a register empty are summed along its lanes
  // (kernels/cpu/attention/few_queries.h). Results differ by rounding.
  bool few_queries_along_lanes = true;
};

struct AttentionForward {
  static constexpr const char* kName = "attention_forward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::products;
  AttentionProblem problem;
  Rows y;      // (Nq, H*D)
  float* lse;  // (H, Nq)
};
template <class I>
void kernel(I, const AttentionForward&);
void launch(Cuda, Stream&, const AttentionForward&);

struct AttentionBackward {
  static constexpr const char* kName = "attention_backward";
  static constexpr bool kCuda = true;
  static constexpr UsesBf16 kBf16 = UsesBf16::products;
  AttentionProblem problem;
  // (Nq, H*D); y, of the forward pass, is read on CUDA only: delta is the product of the rows of y and dY (on tensor cores, where a query
  // sees few keys, sum P dP as on the CPU: there the rounding of y would tell)
  ConstRows y, dy;
  const float* lse;  // (H, Nq)
  Rows dq, dk, dv;   // as q, k, v; data null when not wanted
};
template <class I>
void kernel(I, const AttentionBackward&);
void launch(Cuda, Stream&, const AttentionBackward&);

// --- scratch ------------------------------------------------------------------------------------------------------------------------
struct AttentionBlocks {
  static constexpr std::int64_t kPad = 16;  // floats in a cache line, and in the widest register of any set
  static constexpr std::int64_t kQueries = 64;
  std::int64_t stride;  // of rows of head_dim
  std::int64_t keys;    // keys of a block, padded
};

[[gnu::always_inline]] constexpr std::int64_t padded(std::int64_t n) {
  return (n + AttentionBlocks::kPad - 1) / AttentionBlocks::kPad * AttentionBlocks::kPad;
}

// Floats from row to row of scratch, for rows of n: an odd number of cache lines. Products read a few columns of many rows, which fall on a
// few sets of the first-level cache when the rows are a power of two apart, and push each other out.
[[gnu::always_inline]] constexpr std::int64_t row_stride(std::int64_t n) {
  const std::int64_t lines = padded(n) / AttentionBlocks::kPad;
  return (lines % 2 == 0 ? lines + 1 : lines) * AttentionBlocks::kPad;
}

// Keys of a block: what lets K, V, dK, dV and two score tiles share 1 MiB, a common L2 cache, for head dims up to 112 or so.
[[gnu::always_inline]] constexpr AttentionBlocks blocks_of(const AttentionProblem& p) {
  constexpr std::int64_t floats = 1 << 18;
  AttentionBlocks b{row_stride(p.head_dim), padded(p.longest_key)};
  std::int64_t most = floats / (4 * padded(p.head_dim) + 2 * AttentionBlocks::kQueries) / AttentionBlocks::kPad * AttentionBlocks::kPad;
  if (most < AttentionBlocks::kPad) most = AttentionBlocks::kPad;
  if (b.keys > most) b.keys = most;
  return b;
}

// Heads in tiles of bf16 (kernels/cpu/attention/tiles.h): sides of tiles and panels, floats of a panel, strips of queries whose sums over
// queries are made at once.
struct AttentionTiles {
  static constexpr std::int64_t kSide = 32, kPanel = kSide * kSide / 2, kTile = kSide * kSide, kStrips = 4;
  static constexpr std::int64_t kFewest = 16, kMostKeys = 1024, kMostColumns = 128;
};
[[gnu::always_inline]] constexpr std::int64_t in_sides(std::int64_t n) { return (n + AttentionTiles::kSide - 1) / AttentionTiles::kSide; }

// Whether a head fits scratch that stays in cache, and pays for being filled up to whole tiles.
[[gnu::always_inline]] constexpr bool suits_tiles(std::int64_t head_dim, std::int64_t queries, std::int64_t keys) {
  using T = AttentionTiles;
  return head_dim <= T::kMostColumns && keys <= T::kMostKeys && queries >= T::kFewest && keys >= T::kFewest;
}

// The longest keys of a head in tiles, in sides; 0 when there is no such head.
[[gnu::always_inline]] inline std::int64_t key_sides(const AttentionProblem& p) {
  using T = AttentionTiles;
  const std::int64_t longest = p.longest_key < T::kMostKeys ? p.longest_key : T::kMostKeys;
  const bool some = multiplies_bf16_pairs(active_isa()) && p.q.dtype == DType::bf16 && suits_tiles(p.head_dim, p.longest_query, longest);
  return some ? in_sides(longest) : 0;
}

// Per slot: K, V, scores, then the queries' part (Q both ways, Y); or what tiles need (tiles.h).
[[gnu::always_inline]] inline std::int64_t scratch_floats(const AttentionForward& a) {
  const AttentionBlocks b = blocks_of(a.problem);
  constexpr std::int64_t n = AttentionBlocks::kQueries, tile = row_stride(n);
  const std::int64_t floats = (2 * b.keys + 2 * n + tile) * b.stride + b.keys * tile + 2 * n;
  using T = AttentionTiles;
  const std::int64_t keys = key_sides(a.problem), columns = in_sides(a.problem.head_dim);
  const std::int64_t in_tiles = keys * (2 * columns * T::kPanel + T::kPanel + T::kTile) + columns * T::kPanel;
  return floats > in_tiles ? floats : in_tiles;
}
// Per slot: K, V, dK, dV, two score tiles, Q and dY both ways, sums over the keys, then dQ and those sums of a whole sequence; or what
// tiles need.
[[gnu::always_inline]] inline std::int64_t scratch_floats(const AttentionBackward& a) {
  const AttentionBlocks b = blocks_of(a.problem);
  constexpr std::int64_t n = AttentionBlocks::kQueries, tile = row_stride(n);
  const std::int64_t all_queries = (a.problem.longest_query + n - 1) / n * n;
  const std::int64_t floats = (4 * b.keys + 2 * n + 2 * tile) * b.stride + 2 * b.keys * tile + 2 * n + all_queries * (b.stride + 2);
  using T = AttentionTiles;
  const std::int64_t keys = key_sides(a.problem), columns = in_sides(a.problem.head_dim), per_key = 3 * columns + 2 * T::kStrips + 1;
  const std::int64_t in_tiles = keys * (per_key * T::kPanel + 2 * (columns + 1) * T::kTile) + (2 + 2 * T::kStrips) * columns * T::kPanel;
  return floats > in_tiles ? floats : in_tiles;
}

// On CUDA: nothing forwards; delta (H, Nq) backwards.
constexpr std::int64_t cuda_scratch_floats(const AttentionForward&) { return 0; }
constexpr std::int64_t cuda_scratch_floats(const AttentionBackward& a) { return a.problem.heads * a.problem.q.rows; }

}  // namespace twinlens
