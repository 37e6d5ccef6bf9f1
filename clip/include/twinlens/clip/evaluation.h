#pragma once
// Evaluation of a model on a dataset: embed every picture and every distinct caption once, then measure.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/metrics.h"

namespace twinlens {

struct EmbeddedDataset {
  Tensor images;                                    // (N, E) unit, f32, CPU
  Tensor texts;                                     // (M, E) of the distinct captions
  std::vector<std::string> captions;                // M
  std::vector<std::int64_t> caption_of;             // N, the first of each
  std::vector<std::vector<std::int64_t>> texts_of;  // N, all captions of each
  std::vector<std::int64_t> samples;                // N, index in the dataset, of the first caption
  std::vector<SkippedSample> skipped;
};

// Samples whose picture is the same file (Dataset::picture_place), and those that follow each other with the very same bytes, are one
// picture with several captions; but not where captions are classes (Dataset::has_classes), nor with EmbedOptions::each_sample, for what
// counts samples.
EmbeddedDataset embed_dataset(const Clip& model, const Tokenizer& tokenizer, const Dataset& data, const EmbedOptions& options);
// Only these samples, in ascending order; no other picture or caption is read.
EmbeddedDataset embed_dataset(const Clip& model, const Tokenizer& tokenizer, const Dataset& data, const std::vector<std::int64_t>& samples,
                              const EmbedOptions& options);

// clip_val_loss of metrics.jsonl: symmetric InfoNCE, mean over all pairs, in batches of 256 pictures in a fixed random order (files are
// often sorted by class, whose pictures share captions and would have nothing to be told from). Equal captions in a batch count as one; of
// several captions of a picture the first is taken. log_scale: the model's, a scalar.
double validation_loss(const EmbeddedDataset& embedded, const Tensor& log_scale);

// Names and values as they stand in metrics.jsonl: image_to_text_R@1 ... text_to_image_R@10, mean and median ranks, counts, chance.
std::vector<std::pair<std::string, double>> retrieval_report(const Retrieval& r);

}  // namespace twinlens
