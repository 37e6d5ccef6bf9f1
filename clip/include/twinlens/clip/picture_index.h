#pragma once
// An index of pictures for search: a folder with their unit features and names. Search is exact and reads the features in parts.
//
//   index.json               what made it: model, count, embed dim, and a probe, the features of one text, by which another model is known
//   embeddings.safetensors   `embeddings` (N, E) f32, and how the pictures were decoded (embedding_file.h)
//   names.txt                a name a line, in the order of the rows; pictures whose names have line breaks are skipped

#include <string>
#include <vector>

#include "twinlens/clip/embed_stream.h"
#include "twinlens/clip/embedding_file.h"

namespace twinlens {

struct IndexResult {
  std::int64_t count = 0, skipped = 0;
  bool stopped = false;
};

// Embeds the pictures of `sources` (PictureStream) into `folder`, which is made when it is missing; an index that is there is replaced when
// the new one is whole. `stop` is asked after each batch: what there is until then becomes the index where there was none, and is dropped
// otherwise. Throws FileError when there is no usable picture, ConfigError for a folder that is no index and holds other files, and while
// another process makes an index there.
IndexResult build_index(const Clip& model, const Tokenizer& tokenizer, const std::string& model_name,
                        const std::vector<std::string>& sources, const std::string& folder, const EmbedOptions& options,
                        const std::function<bool()>& stop, const std::function<void(const SkippedSample&)>& skip);

struct Found {
  std::string image;
  double score = 0.0;        // cosine
  double probability = 0.0;  // softmax of logit scale * cosine over the whole index
};

class PictureIndex {
 public:
  // Throws FileError for a folder that is no index or damaged, ConfigError when another model made it.
  PictureIndex(const std::string& folder, const Clip& model, const Tokenizer& tokenizer);
  std::int64_t count() const { return reader_.count(); }
  // The feature (1, E) of a picture to search for, decoded as those of the index were, whatever `options` say about it.
  Tensor query(const Clip& model, const std::string& picture, EmbedOptions options) const;
  // The k best (0 or more) for a unit feature (1, E), best first; equal ones in the order of the index.
  std::vector<Found> search(const Tensor& query, int k, double logit_scale) const;

 private:
  std::string folder_;
  EmbeddingReader reader_;
};

}  // namespace twinlens
