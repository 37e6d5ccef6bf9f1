#pragma once
// Byte-pair merges over bytes: the tables of a vocabulary and the merging of one word. Immutable, so any thread may use it.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace twinlens {

class BytePairs {
 public:
  // `merges`: lines "left right" in order of rank, in the alphabet that stands for bytes ("Ġ"-like code points), without a header line.
  // The first `count` are used. Throws FileError naming `what` and the line when one cannot be read or there are too few.
  BytePairs(std::string_view merges, std::int64_t count, std::string_view what);

  // Ids: 0..255 bytes, 256..511 bytes that end a word, then the merges.
  std::int64_t size() const { return static_cast<std::int64_t>(bytes_.size()); }
  std::vector<std::int32_t> merge_word(std::string_view word) const;
  // The bytes of a token, `ends_word` whether a space follows.
  std::string_view bytes(std::int32_t id) const { return bytes_[static_cast<std::size_t>(id)]; }
  bool ends_word(std::int32_t id) const { return ends_word_[static_cast<std::size_t>(id)]; }

 private:
  struct Merge {
    std::int32_t rank, id;
  };
  const Merge* find(std::int32_t left, std::int32_t right) const;

  std::vector<std::string> bytes_;
  std::vector<bool> ends_word_;
  std::int32_t id_of_byte_[256] = {};
  std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace twinlens
