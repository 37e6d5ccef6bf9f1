#pragma once
// Dataset: image-text pairs by index, wherever they lie. Opening reads an index (offsets, captions), never pictures; reading a sample is
// thread-safe and touches only its bytes.
//
// Forms (see open_dataset): WebDataset tars, CSV/TSV, a folder of pictures with .txt beside them, a folder of class folders.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace twinlens {

// A sample that cannot be used and why: caption empty, picture missing, ...
struct SkippedSample {
  std::string key;     // as in Dataset::key
  std::string reason;  // one line
};

class Dataset {
 public:
  virtual ~Dataset() = default;

  // Usable samples: those with a picture and a caption, as far as the index tells.
  virtual std::int64_t size() const = 0;
  // Stable name of sample i for messages and skipped.tsv: "shard.tar:key", "file.csv:17", "folder/picture.jpg".
  virtual std::string key(std::int64_t i) const = 0;
  // Encoded bytes of the picture. Throws FileError naming the key.
  virtual std::string image_bytes(std::int64_t i) const = 0;
  // The caption (the first, when there are several).
  virtual std::string caption(std::int64_t i) const = 0;
  // Equal captions have equal ids, in [0, number of distinct captions), numbered in order of first appearance.
  virtual std::int64_t caption_id(std::int64_t i) const = 0;
  // A field of the sample's metadata (the .json member, a further CSV column, the class folder as "class"); empty when there is none.
  virtual std::string field(std::int64_t i, const std::string& name) const = 0;
  // What the index already had to leave out.
  virtual const std::vector<SkippedSample>& skipped() const = 0;
  // Changes when the data does: a hash over shard names, sizes and times, keys and captions.
  virtual std::string fingerprint() const = 0;
};

struct DatasetOptions {
  std::string type = "auto";  // auto, webdataset, csv, folder
  std::string csv_separator;  // sniffed when empty
  std::string csv_img_key;    // filepath and common aliases when empty
  std::string csv_caption_key;
  std::string class_caption = "a photo of a {}";  // caption of a picture in a class folder
};

// Opens `spec`: tars (brace ranges `{000..012}`, joined by `::`; .tar.gz are unpacked to TMPDIR), a .csv/.tsv file, or a folder. Throws
// FileError (missing, unreadable, damaged) and ConfigError (unknown type; CSV columns not found, naming those that are).
std::shared_ptr<const Dataset> open_dataset(const std::string& spec, const DatasetOptions& options = {});

}  // namespace twinlens
