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
  // It is left out by a rule (a link that leads back, ...): --max-skipped, which asks how much of the data is bad, does not count it.
  bool by_rule = false;
};

// Samples [begin, begin + count) come from one `::` part of the spec and are seen `weight` times an epoch.
struct DataSource {
  std::int64_t begin = 0, count = 0;
  double weight = 1.0;
};

class Dataset {
 public:
  virtual ~Dataset() = default;

  // Usable samples: those with a picture and a caption, as far as the index tells. With --captions all, a sample for each caption.
  virtual std::int64_t size() const = 0;
  // Stable name of sample i for messages and skipped.tsv: "shard.tar:key", "file.csv:17", "folder/picture.jpg".
  virtual std::string key(std::int64_t i) const = 0;
  // Encoded bytes of the picture. Throws FileError naming the file.
  virtual std::string image_bytes(std::int64_t i) const = 0;
  // Where the picture lies, if several samples may name the same one: rows of a table with the same path. Empty elsewhere.
  virtual std::string picture_place(std::int64_t /*i*/) const { return {}; }
  // The caption (the first, when there are several).
  virtual std::string caption(std::int64_t i) const = 0;
  // Equal captions have equal ids, different ones different ids (63 bits of a hash: two of 10 million share one by chance with probability
  // 5e-6).
  virtual std::int64_t caption_id(std::int64_t i) const = 0;
  // With --captions random: the caption that `draw`, any number, picks among several, and its id. Otherwise as above.
  virtual std::string drawn_caption(std::int64_t i, std::uint64_t /*draw*/) const { return caption(i); }
  virtual std::int64_t drawn_caption_id(std::int64_t i, std::uint64_t /*draw*/) const { return caption_id(i); }
  // A field of the sample's metadata (the .json member, a further CSV column, the class folder as "class", in shards also the caption by
  // the one extension that --text-key names); empty when there is none.
  virtual std::string field(std::int64_t i, const std::string& name) const = 0;
  // What the index already had to leave out.
  virtual const std::vector<SkippedSample>& skipped() const = 0;
  // Changes when the data does: a hash over shard names and sizes, keys and captions (not over pictures).
  virtual std::string fingerprint() const = 0;

  // The captions are made of the names of classes, one for each: finding a picture's caption is classifying it.
  virtual bool has_classes() const { return false; }

  // The parts of the spec; together they are all samples, in order.
  virtual std::vector<DataSource> sources() const { return {{0, size(), 1.0}}; }
  // Where files begin: samples [b[k], b[k + 1]) lie behind each other in one file. Ends with size().
  virtual std::vector<std::int64_t> file_bounds() const { return {0, size()}; }
  // A file can only be read from its front (compressed shards): an order has to go through whole files, in blocks.
  virtual bool sequential() const { return false; }
  // A hint: the pictures of these samples, in ascending order, will be read soon. Those of older calls than the last `blocks` will not.
  // Returns at once.
  virtual void read_ahead(const std::vector<std::int64_t>& /*samples*/, std::int64_t /*blocks*/) const {}
};

struct DatasetOptions {
  std::string type = "auto";  // auto, webdataset, csv, folder
  std::string csv_separator;  // sniffed when empty
  std::string csv_img_key;    // filepath and common aliases when empty
  std::string csv_caption_key;
  std::string class_caption = "a photo of a {}";  // caption of a picture in a class folder
  // webdataset; lists are separated by `;`, best first
  std::string image_key = "jpg;png;jpeg;webp";  // with jpg or jpeg also jpe and jfif, last
  std::string text_key = "txt";
  std::string json_text_key;                // fields of the .json member, instead of text_key; a list gives several captions
  std::vector<double> json_text_key_probs;  // weights of these keys; captions are then drawn by them
  std::string captions = "first";           // of several: first, random (one an epoch), all (a pair for each)
  std::vector<double> upsampling;           // weight of each `::` part; empty: 1
  std::string compressed = "auto";          // .tar.gz, .tar.zst: unpack (to TMPDIR), stream, auto (unpack up to 256 MB in all)
};

// Opens `spec`: tars (brace ranges `{000..012}`, lists `{a,b}` and patterns `*.tar`, joined by `::`; also .tar.gz, .tar.zst), a .csv/.tsv
// file, or a folder. A tar's index is kept beside it, as SHARD.twinlens-index, or under ~/.cache/twinlens. Throws FileError (missing,
// unreadable, damaged) and ConfigError (unknown type or policy; CSV columns not found, naming those that are).
std::shared_ptr<const Dataset> open_dataset(const std::string& spec, const DatasetOptions& options = {});

}  // namespace twinlens
