#pragma once
// Loader: batches of decoded, augmented pictures and tokenised captions, made by worker threads ahead of need.
//
// Batch b of epoch e is a pure function of (seed, e, b): any number of workers gives the same batches in the same order, and a run can be
// taken up at any (epoch, batch). The order of an epoch is an EpochOrder. The number of ranks is a parameter: rank r of P takes rows
// [r B, (r + 1) B) of each global batch of P B pairs; incomplete global batches at the end of an epoch are left out. Where the order goes
// in blocks, the block after the one in use is announced to the dataset, which reads it meanwhile.
//
// A picture that cannot be used is replaced by the next sample in storage order, counted and reported once; when more than `max_skipped`
// of the data is bad, next() throws. One thread calls next(); errors of workers surface there.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "twinlens/clip/augment.h"
#include "twinlens/clip/dataset.h"
#include "twinlens/clip/epoch_order.h"
#include "twinlens/clip/tokenizer.h"
#include "twinlens/core/tensor.h"

namespace twinlens {

struct LoaderOptions {
  std::int64_t batch_size = 64;  // of this rank
  int image_size = 224;
  AugmentOptions augment;
  std::int64_t context_length = 77;
  std::uint64_t seed = 0;
  int workers = 2;
  int rank = 0, world = 1;
  bool equal_captions_apart = false;  // no two equal captions in one global batch
  std::int64_t max_image_pixels = 25'000'000;
  // Bytes: where all decoded pictures fit into so many, they are kept; not with a shuffle_buffer or fast_decode.
  std::int64_t decoded_cache = 0;
  bool fast_decode = false;   // JPEGs at the scale that the crop of the epoch needs (DecodeOptions::least_scale)
  double max_skipped = 0.01;  // of the data, 0 to 1
  // Keys of what an earlier part of the run has skipped, as in its skipped.tsv: counted with what this loader skips, each once.
  std::vector<std::string> skipped_before;
  bool pinned = false;              // pixels in pinned memory, on their way to a card
  bool device_transforms = false;   // pictures decoded and packed, to be transformed there
  bool draw_captions = false;       // of several captions of a picture, another one each epoch (drawn by seed, epoch and sample)
  std::int64_t shuffle_buffer = 0;  // OrderOptions::buffer
};

struct PackedPictures;  // clip/src/card_pictures.h

struct LoadedBatch {
  std::int64_t epoch = 0, index = 0;
  std::int64_t batches = 0;                         // of its epoch
  bool last = false;                                // of them
  Tensor pixels;                                    // (B, S, S, 3) u8; absent with device_transforms
  std::shared_ptr<const PackedPictures> packed;     // then what they are made of
  std::vector<std::vector<std::int32_t>> captions;  // B token lists
  std::vector<std::int64_t> caption_ids;            // B
  std::vector<std::int64_t> samples;                // B, global sample ids (indices into the dataset)
  std::int64_t truncated = 0;                       // captions cut to the context length
  double wait_seconds = 0.0;                        // how long next() waited
  double read_seconds = 0.0;                        // of the worker: getting at the bytes of pictures and captions,
  double decode_seconds = 0.0;                      // and decoding, augmenting, tokenising them
};

class Loader {
 public:
  // Starts at batch `first_batch` of `first_epoch`. Throws ConfigError for options that make no sense, and when not even one global batch
  // can be filled or the workers cannot be started.
  Loader(std::shared_ptr<const Dataset> data, std::shared_ptr<const Tokenizer> tokenizer, const LoaderOptions& options,
         std::int64_t first_epoch = 0, std::int64_t first_batch = 0);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  std::int64_t batches_per_epoch() const;
  // The next batch; goes on into the next epoch by itself.
  LoadedBatch next();
  // Pictures found unusable so far, those the index left out first.
  const std::vector<SkippedSample>& skipped() const;

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

// The EpochOrder of whole global batches (buffer 0), written out.
std::vector<std::int64_t> epoch_order(const Dataset& data, std::int64_t global_batch, std::uint64_t seed, std::int64_t epoch, bool apart);
OrderOptions order_options(const LoaderOptions& options);

}  // namespace twinlens
