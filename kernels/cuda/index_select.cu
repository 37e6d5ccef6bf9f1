#include "kernels/cuda/device/element.cuh"
#include "kernels/cuda/device/launch.cuh"
#include "kernels/cuda/device/pixels.cuh"
#include "kernels/cuda/device/stores.cuh"

#include "twinlens/kernels/index_select.h"

namespace twinlens {
namespace {

using namespace cuda;

__device__ std::int64_t thread_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

// --- select ------------------------------------------------------------------------------------------------------------------------------
// Elements are only moved: a thread for a word of y.
template <class Word>
__global__ void __launch_bounds__(256) select_kernel(const Word* x, Word* y, IndexSelect a, std::int64_t words_of_row, std::int64_t words) {
  const std::int64_t t = thread_index();
  if (t >= words) return;
  const std::int64_t row = t / words_of_row, at = t - row * words_of_row, outer = row / a.count;
  const std::int64_t id = a.ids[row - outer * a.count];
  Word word;
  memset(&word, 0xFF, sizeof word);
  if (id >= 0 && id < a.size) word = x[(outer * a.size + id) * words_of_row + at];
  y[t] = word;
}

// --- few slices: one after the other, as on the CPU --------------------------------------------------------------------------------------
template <class X>
__global__ void __launch_bounds__(256) add_few_kernel(ScatterAdd a) {
  const std::int64_t t = thread_index();
  if (t >= a.outer * a.inner) return;
  const std::int64_t outer = t / a.inner, column = t - outer * a.inner;
  const X* x = a.x.as<X>() + outer * a.count * a.inner + column;
  float* y = a.y + outer * a.size * a.inner + column;
  for (std::int64_t i = 0; i < a.count; ++i) {
    const std::int64_t id = a.ids[i];
    if (id >= 0 && id < a.size) y[id * a.inner] += to_float(x[i * a.inner]);
  }
}

// --- many slices: a stable sort of the ids -----------------------------------------------------------------------------------------------
constexpr int kSortThreads = 256;
static_assert(kSortThreads == ScatterPlan::kDigits);  // a thread for a digit
constexpr int kSortWarps = kSortThreads / kWarp;
constexpr int kRounds = static_cast<int>(ScatterPlan::kTile) / kSortThreads;

__global__ void __launch_bounds__(256) take_ids_kernel(ScatterAdd a, std::uint32_t* ids, std::uint32_t* places) {
  const std::int64_t i = thread_index();
  if (i >= a.count) return;
  const std::int64_t id = a.ids[i];
  ids[i] = static_cast<std::uint32_t>(id >= 0 && id < a.size ? id : a.size);
  places[i] = static_cast<std::uint32_t>(i);
}

__device__ unsigned digit_of(std::uint32_t id, int shift) { return (id >> shift) & 255U; }

// counts[digit * tiles + tile]: how many ids of a tile have that digit. (Sums of integers: any order will do.)
__global__ void __launch_bounds__(kSortThreads)
    count_kernel(const std::uint32_t* ids, std::int64_t count, int shift, std::uint32_t* counts) {
  __shared__ std::uint32_t of_digit[ScatterPlan::kDigits];
  of_digit[threadIdx.x] = 0;
  __syncthreads();
  for (int round = 0; round < kRounds; ++round) {
    const std::int64_t i = std::int64_t{blockIdx.x} * ScatterPlan::kTile + round * kSortThreads + threadIdx.x;
    if (i < count) atomicAdd(&of_digit[digit_of(ids[i], shift)], 1U);
  }
  __syncthreads();
  counts[std::int64_t{threadIdx.x} * gridDim.x + blockIdx.x] = of_digit[threadIdx.x];
}

// Replaces each number by the sum of those before it. One block: there are 256 numbers for 4096 ids.
constexpr int kScanThreads = 1024, kScanEach = 4;
__global__ void __launch_bounds__(kScanThreads) scan_kernel(std::uint32_t* x, std::int64_t count) {
  __shared__ std::uint32_t of_warp[kWarp];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  std::uint32_t before = 0;  // the sum of what earlier rounds have seen
  for (std::int64_t begin = 0; begin < count; begin += kScanThreads * kScanEach) {
    const std::int64_t first = begin + std::int64_t{threadIdx.x} * kScanEach;
    std::uint32_t v[kScanEach], own = 0;
#pragma unroll
    for (int k = 0; k < kScanEach; ++k) {
      v[k] = first + k < count ? x[first + k] : 0U;
      own += v[k];
    }
    std::uint32_t up_to = own;  // over the warp
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const std::uint32_t left = __shfl_up_sync(0xFFFFFFFFU, up_to, offset);
      if (lane >= static_cast<unsigned>(offset)) up_to += left;
    }
    __syncthreads();  // the last round has been read
    if (lane == kWarp - 1) of_warp[warp] = up_to;
    __syncthreads();
    std::uint32_t sum = before + up_to - own;
    for (unsigned w = 0; w < kWarp; ++w) {
      const std::uint32_t n = of_warp[w];
      sum += w < warp ? n : 0U;
      before += n;
    }
#pragma unroll
    for (int k = 0; k < kScanEach; ++k) {
      if (first + k < count) x[first + k] = sum;
      sum += v[k];
    }
  }
}

// Moves a tile's ids and places to where their digit goes, equal digits in the order in which they stand: rounds of 256 ids in order,
// warps in order, lanes in order. `starts` is what scan_kernel made of the counts.
__global__ void __launch_bounds__(kSortThreads)
    move_kernel(const std::uint32_t* ids, const std::uint32_t* places, std::int64_t count, int shift, const std::uint32_t* starts,
                std::uint32_t* ids_out, std::uint32_t* places_out) {
  __shared__ std::uint32_t start[kSortWarps][ScatterPlan::kDigits];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  std::uint32_t next = starts[std::int64_t{threadIdx.x} * gridDim.x + blockIdx.x];  // of the digit that is this thread's number
  for (int round = 0; round < kRounds; ++round) {
    const std::int64_t i = std::int64_t{blockIdx.x} * ScatterPlan::kTile + round * kSortThreads + threadIdx.x;
    const bool inside = i < count;
    const std::uint32_t id = inside ? ids[i] : 0U;
    const unsigned digit = inside ? digit_of(id, shift) : 256U;
    for (int w = 0; w < kSortWarps; ++w) start[w][threadIdx.x] = 0;
    __syncthreads();
    const unsigned same = __match_any_sync(0xFFFFFFFFU, digit);
    const auto rank = static_cast<unsigned>(__popc(same & ((1U << lane) - 1U)));
    if (inside && rank == 0) start[warp][digit] = static_cast<unsigned>(__popc(same));
    __syncthreads();
    for (int w = 0; w < kSortWarps; ++w) {
      const std::uint32_t n = start[w][threadIdx.x];
      start[w][threadIdx.x] = next;
      next += n;
    }
    __syncthreads();
    if (inside) {
      const std::uint32_t to = start[warp][digit] + rank;
      ids_out[to] = id;
      places_out[to] = places[i];
    }
    __syncthreads();
  }
}

// --- and sums over its runs --------------------------------------------------------------------------------------------------------------
constexpr int kSumThreads = 64;
constexpr int kAtOnce = 4;  // slices that a thread has under way

struct Sorted {
  const std::uint32_t* ids;
  const std::uint32_t* places;
  std::int64_t pieces;
  float* sums;  // (outer, pieces, 2, inner): of a run that began in an earlier piece, of a run that goes on in the next one
};

// What a block works on: one piece, one outer index, W columns a thread.
struct PieceWork {
  std::int64_t piece, outer, column, begin, end;
};
template <int W>
__device__ PieceWork piece_work(const ScatterAdd& a, std::int64_t pieces, unsigned column_blocks) {
  PieceWork p;
  const std::int64_t row = blockIdx.x / column_blocks;
  p.outer = row / pieces;
  p.piece = row - p.outer * pieces;
  p.column = (std::int64_t{blockIdx.x % column_blocks} * kSumThreads + threadIdx.x) * W;
  p.begin = p.piece * ScatterPlan::kPiece;
  p.end = p.begin + ScatterPlan::kPiece < a.count ? p.begin + ScatterPlan::kPiece : a.count;
  return p;
}
__device__ float* sums_of(const ScatterAdd& a, const Sorted& s, const PieceWork& p, std::int64_t piece, int which) {
  return s.sums + ((p.outer * s.pieces + piece) * 2 + which) * a.inner + p.column;
}
template <int W>
__device__ void add_to_result(const ScatterAdd& a, const PieceWork& p, std::uint32_t id, const float (&sum)[W]) {
  float* y = a.y + (p.outer * a.size + id) * a.inner + p.column;
  float v[W];
  load_pack(y, W, true, v);
#pragma unroll
  for (int k = 0; k < W; ++k) v[k] += sum[k];
  store_whole(v, y);
}

template <class X, int W>
__global__ void __launch_bounds__(kSumThreads) sum_pieces_kernel(ScatterAdd a, Sorted s, unsigned column_blocks) {
  __shared__ std::uint32_t ids[ScatterPlan::kPiece], places[ScatterPlan::kPiece];
  const PieceWork p = piece_work<W>(a, s.pieces, column_blocks);
  const int n = static_cast<int>(p.end - p.begin);
  for (int j = static_cast<int>(threadIdx.x); j < n; j += kSumThreads) {
    ids[j] = s.ids[p.begin + j];
    places[j] = s.places[p.begin + j];
  }
  __syncthreads();
  if (p.column >= a.inner) return;
  const bool goes_on = p.end < a.count && s.ids[p.end] == ids[n - 1];  // the last run
  bool began_before = p.begin > 0 && s.ids[p.begin - 1] == ids[0];     // the run at hand
  const X* x = a.x.as<X>() + p.outer * a.count * a.inner + p.column;
  float sum[W] = {};
  for (int first = 0; first < n; first += kAtOnce) {
    float v[kAtOnce][W];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (first + j < n) load_pack(x + std::int64_t{places[first + j]} * a.inner, W, true, v[j]);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int at = first + j;
      if (at >= n) break;
#pragma unroll
      for (int k = 0; k < W; ++k) sum[k] += v[j][k];
      const bool last = at + 1 == n;
      if (!last && ids[at + 1] == ids[at]) continue;
      if (ids[at] < a.size) {
        if (began_before) {
          store_whole(sum, sums_of(a, s, p, p.piece, 0));
        } else if (last && goes_on) {
          store_whole(sum, sums_of(a, s, p, p.piece, 1));
        } else {
          add_to_result(a, p, ids[at], sum);
        }
      }
      began_before = false;
#pragma unroll
      for (int k = 0; k < W; ++k) sum[k] = 0.0F;
    }
  }
}

// The first position whose id is above `id`.
__device__ std::int64_t end_of_run(const std::uint32_t* ids, std::int64_t low, std::int64_t high, std::uint32_t id) {
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (ids[middle] > id) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// A run that goes on beyond the piece in which it began: the sums of its pieces, in order.
template <int W>
__global__ void __launch_bounds__(kSumThreads) join_pieces_kernel(ScatterAdd a, Sorted s, unsigned column_blocks) {
  const PieceWork p = piece_work<W>(a, s.pieces, column_blocks);
  if (p.column >= a.inner || p.end >= a.count) return;
  const std::uint32_t id = s.ids[p.end - 1];
  if (id >= a.size || s.ids[p.end] != id) return;
  if (p.begin > 0 && s.ids[p.begin - 1] == id) return;  // it began earlier still
  const std::int64_t run_end = end_of_run(s.ids, p.end, a.count, id);
  const std::int64_t last_piece = (run_end - 1) / ScatterPlan::kPiece;
  float sum[W];
  load_pack(sums_of(a, s, p, p.piece, 1), W, true, sum);
#pragma unroll 4
  for (std::int64_t piece = p.piece + 1; piece <= last_piece; ++piece) {
    float v[W];
    load_pack(sums_of(a, s, p, piece, 0), W, true, v);
#pragma unroll
    for (int k = 0; k < W; ++k) sum[k] += v[k];
  }
  add_to_result(a, p, id, sum);
}

// Sorts into copy `plan.passes % 2` of the ids and places.
void sort_ids(Stream& stream, const ScatterAdd& a, const ScatterPlan& plan) {
  std::uint32_t* counts = a.scratch + plan.counts;
  const auto tiles = static_cast<unsigned>(plan.tiles);
  take_ids_kernel<<<element_launch(a.count, 1).blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a, a.scratch + plan.ids[0],
                                                                                                     a.scratch + plan.places[0]);
  for (std::int64_t pass = 0; pass < plan.passes; ++pass) {
    const std::int64_t from = pass % 2, to = 1 - from;
    const int shift = static_cast<int>(8 * pass);
    const std::uint32_t *ids = a.scratch + plan.ids[from], *places = a.scratch + plan.places[from];
    count_kernel<<<tiles, kSortThreads, 0, native(stream)>>>(ids, a.count, shift, counts);
    scan_kernel<<<1, kScanThreads, 0, native(stream)>>>(counts, ScatterPlan::kDigits * plan.tiles);
    move_kernel<<<tiles, kSortThreads, 0, native(stream)>>>(ids, places, a.count, shift, counts, a.scratch + plan.ids[to],
                                                            a.scratch + plan.places[to]);
  }
}

template <class X>
void add_sorted(Stream& stream, const ScatterAdd& a, const ScatterPlan& plan) {
  sort_ids(stream, a, plan);
  const std::int64_t copy = plan.passes % 2;
  const Sorted sorted{a.scratch + plan.ids[copy], a.scratch + plan.places[copy], plan.pieces,
                      reinterpret_cast<float*>(a.scratch + plan.sums)};
  visit_channel_packs<X>(a.inner, {a.x.data, a.y, sorted.sums}, [&]<int W>(Channels<W>) {
    const auto column_blocks = static_cast<unsigned>(ceil_div(a.inner, W * kSumThreads));
    const auto blocks = static_cast<unsigned>(a.outer * plan.pieces * column_blocks);
    sum_pieces_kernel<X, W><<<blocks, kSumThreads, 0, native(stream)>>>(a, sorted, column_blocks);
    join_pieces_kernel<W><<<blocks, kSumThreads, 0, native(stream)>>>(a, sorted, column_blocks);
  });
}

}  // namespace

void launch(Cuda, Stream& stream, const IndexSelect& a) {
  const std::int64_t bytes = a.inner * size_of(a.x.dtype);
  if (bytes == 0) return;
  const std::int64_t word = common_word(a.x.data, a.y.data, bytes), words = bytes / word, all = a.outer * a.count * words;
  const ElementLaunch geometry = element_launch(all, 1);
  if (geometry.blocks == 0) return;
  visit_word(word, [&]<class Word>(TypeTag<Word>) {
    select_kernel<<<geometry.blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a.x.as<Word>(), a.y.as<Word>(), a, words, all);
  });
}

void launch(Cuda, Stream& stream, const ScatterAdd& a) {
  if (a.outer * a.inner * a.count == 0) return;
  const ScatterPlan plan = scatter_plan(a.outer, a.size, a.count, a.inner);
  visit_cuda_float(a.x.dtype, [&]<class X>(TypeTag<X>) {
    if (plan.passes == 0) {
      add_few_kernel<X><<<element_launch(a.outer * a.inner, 1).blocks, ElementLaunch::kThreads, 0, native(stream)>>>(a);
    } else {
      add_sorted<X>(stream, a, plan);
    }
  });
}

}  // namespace twinlens
