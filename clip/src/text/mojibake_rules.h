#pragma once
// The rules of clip/data/mojibake.txt: sets of characters, sequences of sets, and single-byte code pages. Made once, then immutable.

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace twinlens {

// Characters of listed ranges, of white space and of words; or all others.
class CharSet {
 public:
  // As written in the file: "c2-df,100,s"; '!' in front for the complement.
  explicit CharSet(std::string_view text);
  bool contains(char32_t c) const { return c < kTable ? table_[c] : computed(c); }
  // Listed characters beyond the table.
  std::vector<char32_t> high_members() const;

  static constexpr char32_t kTable = 0x2600;

 private:
  bool computed(char32_t c) const;

  std::vector<std::pair<char32_t, char32_t>> ranges_;
  bool space_ = false, word_ = false, negated_ = false;
  std::bitset<kTable> table_;
};

// A list of sequences of sets, as a regular expression `a b c | d e | ^ f` has them.
class Sequences {
 public:
  // "^ c2-c3 20": '^' in front binds to the start of the text.
  void add(std::string_view text);
  // To be called after the last add().
  void index();
  // Characters that the first fitting sequence takes at `i`; 0 when none fits.
  std::size_t match(std::u32string_view text, std::size_t i) const;
  // Whether any sequence fits anywhere. Two look-ups a character for most texts.
  bool found_in(std::u32string_view text) const;
  // Bit k: sequence k can have c at this position (0 or 1), or has no such position.
  std::uint64_t mask(char32_t c, std::size_t position) const;
  // The sequences of one set.
  std::uint64_t single() const { return single_; }

 private:
  struct Sequence {
    bool at_start = false;
    std::vector<CharSet> sets;
  };
  bool fits(const Sequence& s, std::u32string_view text, std::size_t i) const;
  std::uint64_t slow_mask(char32_t c, std::size_t position) const;

  std::vector<Sequence> sequences_;
  // mask() of the code points that sets have in their tables.
  std::vector<std::uint64_t> table_[2];
  std::vector<char32_t> special_;  // beyond the table, and unlike the others there
  std::uint64_t high_[2] = {0, 0}, single_ = 0;
};

// A single-byte encoding; its lower half is ASCII.
struct CodePage {
  std::string name;
  bool sloppy = false;  // byte 0x1A stands for U+FFFD
  char32_t upper[128] = {};
  std::unordered_map<char32_t, std::uint8_t> byte_of;
  // The bytes, or nothing when a character has none.
  std::optional<std::u32string> encode(std::u32string_view text) const;
};

struct MojibakeRules {
  std::vector<CodePage> pages;  // in the order in which they are tried
  Sequences bad, altered, lossy;
  std::unordered_map<std::string, CharSet> clues;
  std::unordered_map<char32_t, std::u32string> ligatures;
  const CodePage& page(std::string_view name) const;
};
const MojibakeRules& mojibake_rules();

}  // namespace twinlens
