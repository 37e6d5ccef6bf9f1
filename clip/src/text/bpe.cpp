#include "clip/src/text/bpe.h"

#include "clip/src/text/unicode.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr std::string_view kEndOfWord = "</w>";

// Printable Latin-1 characters stand for themselves, the other bytes for 256, 257, ... in order; ids follow in that order too.
bool stands_for_itself(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

BytePairs::BytePairs(std::string_view text, std::int64_t count, std::string_view what) {
  std::unordered_map<std::string, std::int32_t> ids;  // by the spelling of the file
  for (const bool ends : {false, true}) {
    std::int32_t id = ends ? 256 : 0;
    for (const bool printable : {true, false}) {
      std::uint32_t next = 256;
      for (int byte = 0; byte < 256; ++byte) {
        const std::uint32_t character = stands_for_itself(byte) ? static_cast<std::uint32_t>(byte) : next++;
        if (stands_for_itself(byte) != printable) continue;
        if (!ends) id_of_byte_[byte] = id;
        std::string spelling;
        append_utf8(spelling, character);
        if (ends) spelling += kEndOfWord;
        ids[spelling] = id++;
        bytes_.emplace_back(1, static_cast<char>(byte));
        ends_word_.push_back(ends);
      }
    }
  }
  merges_.reserve(static_cast<std::size_t>(count));
  for (std::int64_t rank = 0; rank < count; ++rank) {
    const std::string_view line = text.substr(0, text.find('\n'));
    const std::size_t space = line.find(' ');
    const auto left = ids.find(std::string(line.substr(0, space)));
    const auto right = space == std::string_view::npos ? ids.end() : ids.find(std::string(line.substr(space + 1)));
    if (left == ids.end() || right == ids.end()) {
      throw FileError("merge " + std::to_string(rank) + " '" + std::string(line) + "' is not a pair of known tokens; " + std::string(what) +
                      "; use a merges file with at least " + std::to_string(count) + " merges in order of rank");
    }
    const auto id = static_cast<std::int32_t>(bytes_.size());
    const std::int32_t l = left->second, r = right->second;
    bytes_.push_back(bytes_[static_cast<std::size_t>(l)] + bytes_[static_cast<std::size_t>(r)]);
    ends_word_.push_back(ends_word_[static_cast<std::size_t>(r)]);
    ids[std::string(line.substr(0, space)) + std::string(line.substr(space + 1))] = id;
    merges_.emplace(pair_key(l, r), Merge{static_cast<std::int32_t>(rank), id});
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
}

const BytePairs::Merge* BytePairs::find(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<std::int32_t> BytePairs::merge_word(std::string_view word) const {
  std::vector<std::int32_t> symbols;
  symbols.reserve(word.size());
  for (const char c : word) symbols.push_back(id_of_byte_[static_cast<unsigned char>(c)]);
  if (symbols.empty()) return symbols;
  symbols.back() += 256;
  while (symbols.size() > 1) {
    const Merge* best = nullptr;
    std::size_t first = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge* merge = find(symbols[i], symbols[i + 1]);
      if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) {
        best = merge;
        first = i;
      }
    }
    if (best == nullptr) break;
    // All occurrences of the pair, left to right.
    const std::int32_t left = symbols[first], right = symbols[first + 1];
    std::size_t out = first;
    for (std::size_t i = first; i < symbols.size();) {
      const bool here = i + 1 < symbols.size() && symbols[i] == left && symbols[i + 1] == right;
      symbols[out++] = here ? best->id : symbols[i];
      i += here ? 2 : 1;
    }
    symbols.resize(out);
  }
  return symbols;
}

}  // namespace twinlens
