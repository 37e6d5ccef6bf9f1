#pragma once
// Embeddings on disk, more than memory holds: a safetensors file with one tensor `embeddings` (N, E) f32. Its metadata says how pictures
// were decoded: `exif_orientation` and `fast_decode`, each "true" or "false".

#include <cstdint>
#include <map>
#include <string>

#include "twinlens/clip/embedding.h"
#include "twinlens/core/file.h"
#include "twinlens/core/tensor.h"

namespace twinlens {

using Metadata = std::map<std::string, std::string>;

// How options decode pictures, as metadata, and the other way round: false where the metadata do not say, as files of before did not, and
// the plain way is taken. Throws FileError, with `path` in it, when the metadata are of a way that is not known.
Metadata decoding_metadata(const EmbedOptions& options);
bool decode_as(EmbedOptions& options, const Metadata& metadata, const std::string& path);

// Writes it row by row, in the place of a file that is there. Throws FileError at once where no file can be made. Rows lie in an unnamed
// file in the folder of `path` until finish() knows their number; then the file is written atomically.
class EmbeddingWriter {
 public:
  explicit EmbeddingWriter(std::string path, Metadata metadata = {});
  ~EmbeddingWriter();  // without finish(): nothing is left behind
  EmbeddingWriter(const EmbeddingWriter&) = delete;
  EmbeddingWriter& operator=(const EmbeddingWriter&) = delete;

  // (n, E) f32 on the CPU; E is that of the first call.
  void append(const Tensor& rows);
  std::int64_t count() const { return count_; }
  std::int64_t width() const { return width_; }
  void finish();

 private:
  std::string path_;
  Metadata metadata_;
  int descriptor_ = -1;
  std::int64_t count_ = 0, width_ = 0;
};

// Reads such a file in parts. Throws FileError when it is not one.
class EmbeddingReader {
 public:
  explicit EmbeddingReader(const std::string& path);
  std::int64_t count() const { return count_; }
  std::int64_t width() const { return width_; }
  const Metadata& metadata() const { return metadata_; }
  // Rows [begin, end): (end - begin, E).
  Tensor rows(std::int64_t begin, std::int64_t end) const;

 private:
  InputFile file_;
  Metadata metadata_;
  std::uint64_t data_ = 0;
  std::int64_t count_ = 0, width_ = 0;
};

}  // namespace twinlens
