#pragma once
// Slices of a tensor by index, and their sum back. A tensor is (outer, V, inner) with the indexed dimension in the middle; an embedding
// table is the case outer = 1.
//   select       y[o, i, :] = x[o, ids[i], :]
//   scatter add  y[o, ids[i], :] += x[o, i, :], in the order of i: the same bits for any thread count, repeated indices included.
//
// On CUDA nobody has looked at the ids (the host would have to wait for them): a slice with an index outside of [0, size) is selected as
// bytes of 255, which are NaN in every float type, and is not added anywhere.

#include "twinlens/kernels/run.h"
#include "twinlens/kernels/view.h"

namespace twinlens {

struct IndexSelect {
  static constexpr const char* kName = "index_select";
  static constexpr bool kCuda = true;
  ConstBuffer x;            // (outer, size, inner) of any dtype
  const std::int64_t* ids;  // (count), each in [0, size)
  Buffer y;                 // (outer, count, inner), dtype of x
  std::int64_t outer, size, count, inner;
};
template <class I>
void kernel(I, const IndexSelect&);
void launch(Cuda, Stream&, const IndexSelect&);

struct ScatterAdd {
  static constexpr const char* kName = "scatter_add";
  static constexpr bool kCuda = true;
  ConstBuffer x;            // (outer, count, inner) float
  const std::int64_t* ids;  // (count), each in [0, size)
  float* y;                 // (outer, size, inner): sums of many small numbers are kept in f32
  std::int64_t outer, size, count, inner;
  std::uint32_t* scratch = nullptr;  // CUDA only: scatter_plan().words of them
};
template <class I>
void kernel(I, const ScatterAdd&);
void launch(Cuda, Stream&, const ScatterAdd&);

// How CUDA adds many slices: the ids are sorted (stable, by digits of 8 bits), so that equal ones stand together in the order of i; the
// sorted row is cut into pieces of kPiece; a piece adds up its runs of equal ids, and what runs over the edge of a piece is put together
// from the sums of the pieces, in order. Up to kFew slices are added one after the other instead.
struct ScatterPlan {
  static constexpr std::int64_t kFew = 64, kPiece = 128;
  static constexpr std::int64_t kDigits = 256;  // values of a digit
  static constexpr std::int64_t kTile = 4096;   // ids that one block sorts

  std::int64_t passes = 0;  // of the sort, one a digit; 0: one after the other
  std::int64_t tiles = 0, pieces = 0;
  // Of the parts of the scratch memory, in words of 4 bytes: two copies of the ids and of the places they came from, the numbers of ids by
  // digit and tile, and two rows of sums a piece.
  std::int64_t ids[2] = {}, places[2] = {}, counts = 0, sums = 0, words = 0;
};
constexpr ScatterPlan scatter_plan(std::int64_t outer, std::int64_t size, std::int64_t count, std::int64_t inner) {
  ScatterPlan p;
  if (count <= ScatterPlan::kFew) return p;
  // `size` itself is the id of what is not added.
  for (std::int64_t rest = size; rest > 0; rest /= ScatterPlan::kDigits) ++p.passes;
  if (p.passes == 0) p.passes = 1;
  p.tiles = (count + ScatterPlan::kTile - 1) / ScatterPlan::kTile;
  p.pieces = (count + ScatterPlan::kPiece - 1) / ScatterPlan::kPiece;
  for (std::int64_t* part : {&p.ids[0], &p.ids[1], &p.places[0], &p.places[1]}) {
    *part = p.words;
    p.words += count;
  }
  p.counts = p.words;
  p.words += ScatterPlan::kDigits * p.tiles;
  p.sums = (p.words + 3) / 4 * 4;  // on 16 bytes
  p.words = p.sums;
  p.words += 2 * outer * p.pieces * inner;
  return p;
}

}  // namespace twinlens
