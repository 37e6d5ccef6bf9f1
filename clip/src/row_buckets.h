#pragma once
// Row buckets: the captions of a batch filled up with made-up ones, so that batches have one of a few sizes and a step that was recorded
// for one serves all of that size (docs/decisions/0018-graphs.md).
//
// Made-up captions are ordinary ones that no pair has. They stand behind the others, so nobody reads their features, the gradient of their
// rows is an exact zero, and no kernel needs to know of them.

#include <cstdint>
#include <vector>

namespace twinlens {

// What a batch of `pairs` is filled up to.
struct RowBucket {
  std::int64_t captions = 0;
  std::int64_t rows = 0;  // of the text tower; packed captions only
};

// Of a batch with so many captions that are encoded, and so many tokens in them: a multiple of 1/64 of the rows that all pairs have at the
// context length, and of 1/16 of the pairs plus enough captions to hold what is missing. One of those that are made up always has the
// context's length, because launches depend on the longest.
RowBucket packed_bucket(std::int64_t pairs, std::int64_t context, std::int64_t captions, std::int64_t rows);
// Of captions that are padded to the context length, which need nothing but their number.
RowBucket padded_bucket(std::int64_t pairs, std::int64_t captions);

// Appends made-up captions of 1 to `context` tokens until the bucket is full.
void fill_bucket(std::vector<std::vector<std::int32_t>>& captions, std::int64_t pairs, std::int64_t context, bool packed);

}  // namespace twinlens
