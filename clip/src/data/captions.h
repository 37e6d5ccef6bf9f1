#pragma once
// Which texts of a sample are its captions: a .txt member, or fields of its .json member; one or several.

#include <cstdint>
#include <string>
#include <vector>

#include "twinlens/clip/dataset.h"

namespace twinlens {

struct Caption {
  std::string text;      // trimmed, not empty
  std::uint8_t key = 0;  // which of the keys of `--json-text-key` it stood under
};

// The keys of a `;`-separated list.
std::vector<std::string> split_keys(const std::string& list);

class CaptionRules {
 public:
  // Throws ConfigError for weights that do not fit the keys.
  explicit CaptionRules(const DatasetOptions& options);

  const std::vector<std::string>& image_keys() const { return image_keys_; }
  // Extensions of pictures, best first: those, and the other names that JPEG files have.
  const std::vector<std::string>& picture_keys() const { return picture_keys_; }
  // Extensions that may hold the captions, best first: those of --text-key, or json when --json-text-key is given.
  const std::vector<std::string>& source_keys() const { return source_keys_; }
  // The captions in the bytes of such a member, in the order of the keys; a JSON list gives its texts one by one. What is not text or
  // has only blanks is left out; at most 256.
  std::vector<Caption> read(const std::string& bytes) const;
  // Which of a sample's captions `draw` picks: the first (policy first or all), one of equal or given weights (random). `keys` has one
  // entry for each of `count` captions. Captions whose key has weight 0 stand in only when there are no others.
  std::size_t pick(const std::uint8_t* keys, std::size_t count, std::uint64_t draw) const;
  bool all() const { return policy_ == "all"; }
  // Changes when an index made by these rules would.
  std::uint64_t digest() const;

 private:
  std::vector<std::string> image_keys_, picture_keys_, source_keys_, json_keys_;
  std::vector<double> weights_;  // by JSON key; empty: equal
  std::string policy_;
};

// Equal texts have equal ids: 63 bits of a hash, so that two different ones among 10 million share an id with probability 5e-6.
std::int64_t caption_id_of(const std::string& text);
// The same hash of any bytes, going on from `before`.
std::uint64_t hash_bytes(const void* bytes, std::size_t count, std::uint64_t before = 0);

}  // namespace twinlens
