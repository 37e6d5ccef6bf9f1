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
  // All lines; ids by the spelling of the token, `unknown` for a symbol that has none.
  BytePairs(std::string_view merges, const std::unordered_map<std::string, std::int32_t>& ids, std::int32_t unknown, std::string_view what);

  // Without given ids: 0..255 bytes, 256..511 bytes that end a word, then the merges.
  std::int64_t size() const { return static_cast<std::int64_t>(bytes_.size()); }
  // Spellings of the symbols in that order.
  std::vector<std::string> spellings() const;
  std::vector<std::int32_t> merge_word(std::string_view word) const;
  // The bytes of a token, `ends_word` whether a space follows. Nothing for an id that is no token.
  std::string_view bytes(std::int32_t id) const;
  bool ends_word(std::int32_t id) const;

 private:
  struct Merge {
    std::int32_t rank, id;
  };
  void add_bytes();
  void add_merge(std::string_view line, std::int64_t rank, std::string_view what);
  const Merge* find(std::int32_t left, std::int32_t right) const;
  std::size_t symbol_of(std::int32_t id) const;  // npos: none

  // Symbols have numbers of their own, in the order given above.
  std::unordered_map<std::string, std::int32_t> symbols_;  // by the spelling of the file
  std::vector<std::int32_t> id_of_;                        // ids of the symbols; empty: the same numbers
  std::unordered_map<std::int32_t, std::int32_t> symbol_of_;
  std::vector<std::string> bytes_;
  std::vector<bool> ends_word_;
  std::int32_t id_of_byte_[256] = {};
  std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace twinlens
