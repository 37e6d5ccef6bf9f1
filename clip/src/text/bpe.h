#pragma once
// Byte-pair merges over bytes: the tables of a vocabulary and the merging of one word. Immutable, so any thread may use it.
//
// The tables are flat (texts in one block, slots by open addressing): a vocabulary of 49,408 is ready some milliseconds after its file is.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace twinlens {

// Texts by number, one behind the other in memory.
class TextBlock {
 public:
  std::size_t size() const { return begins_.size() - 1; }
  std::string_view operator[](std::size_t i) const { return {text_.data() + begins_[i], begins_[i + 1] - begins_[i]}; }
  // Adds what the parts make together.
  void add(std::string_view first, std::string_view second = {});
  void drop_last();

 private:
  std::string text_;
  std::vector<std::uint32_t> begins_{0};
};

// Different texts, numbered as they come.
class TextTable {
 public:
  // Makes room for so many.
  void reserve(std::size_t count);
  const TextBlock& texts() const { return texts_; }
  // -1: not there.
  std::int32_t find(std::string_view text) const;
  // The number of what the parts make together, new or not.
  std::int32_t add(std::string_view first, std::string_view second = {});

 private:
  struct Slot {
    std::uint32_t hash = 0;
    std::int32_t number = -1;
  };
  std::size_t slot_of(std::string_view text, std::uint64_t hash) const;
  void resize(std::size_t slots);

  TextBlock texts_;
  std::vector<Slot> slots_ = std::vector<Slot>(1024);  // a power of two, at most half full
};

// What a pair of symbols becomes.
class PairTable {
 public:
  void reserve(std::size_t count);
  struct Merge {
    std::int32_t rank, id;
  };
  // nullptr: the pair is not merged.
  const Merge* find(std::int32_t left, std::int32_t right) const;
  // Keeps what is there.
  void add(std::int32_t left, std::int32_t right, Merge merge);

 private:
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t pair = kFree;
    Merge merge{};
  };
  std::size_t slot_of(std::uint64_t pair) const;
  void resize(std::size_t slots);

  std::size_t used_ = 0;
  std::vector<Slot> slots_ = std::vector<Slot>(1024);  // a power of two, at most half full
};

// Tokens of the built-in vocabulary with none of its merges (512 bytes, start and end) and with all.
constexpr std::int64_t kLeastTokens = 514, kMostTokens = kLeastTokens + 48894;
// The first `count` of its merges or more, a line "left right" each.
std::string built_in_merges(std::int64_t count);

class BytePairs {
 public:
  // `merges`: lines "left right" in order of rank, in the alphabet that stands for bytes ("Ġ"-like code points), without a header line.
  // The first `count` are used. Throws FileError naming `what` and the line when one cannot be read or there are too few.
  BytePairs(std::string_view merges, std::int64_t count, std::string_view what);
  // All lines; ids by the spelling of the token, `unknown` for a byte that has none. FileError, too, for a merge whose token has none.
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
  // `merges`: about how many.
  void start(std::size_t merges);
  // What the pair becomes.
  std::int32_t add_merge(std::string_view line, std::int64_t rank, std::string_view what);
  std::size_t symbol_of(std::int32_t id) const;  // npos: none

  // Symbols have numbers of their own, in the order given above.
  TextTable symbols_;                // by the spelling of the file
  std::vector<std::int32_t> id_of_;  // ids of the symbols; empty: the same numbers
  std::unordered_map<std::int32_t, std::int32_t> symbol_of_;
  TextBlock bytes_;
  std::vector<bool> ends_word_;
  std::int32_t id_of_byte_[256] = {};
  PairTable merges_;
};

}  // namespace twinlens
