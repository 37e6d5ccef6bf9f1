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

void BytePairs::add_bytes() {
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
        symbols_[spelling] = id++;
        bytes_.emplace_back(1, static_cast<char>(byte));
        ends_word_.push_back(ends);
      }
    }
  }
}

void BytePairs::add_merge(std::string_view line, std::int64_t rank, std::string_view what) {
  const std::size_t space = line.find(' ');
  const auto left = symbols_.find(std::string(line.substr(0, space)));
  const auto right = space == std::string_view::npos ? symbols_.end() : symbols_.find(std::string(line.substr(space + 1)));
  if (left == symbols_.end() || right == symbols_.end()) {
    throw FileError("merge " + std::to_string(rank) + " '" + std::string(line) + "' is not a pair of known tokens; " + std::string(what) +
                    "; use a merges file in order of rank");
  }
  const std::int32_t l = left->second, r = right->second;
  const auto next = static_cast<std::int32_t>(bytes_.size());
  const auto [it, is_new] = symbols_.try_emplace(std::string(line.substr(0, space)) + std::string(line.substr(space + 1)), next);
  if (is_new) {
    bytes_.push_back(bytes_[static_cast<std::size_t>(l)] + bytes_[static_cast<std::size_t>(r)]);
    ends_word_.push_back(ends_word_[static_cast<std::size_t>(r)]);
  }
  merges_.emplace(pair_key(l, r), Merge{static_cast<std::int32_t>(rank), it->second});
}

BytePairs::BytePairs(std::string_view text, std::int64_t count, std::string_view what) {
  add_bytes();
  merges_.reserve(static_cast<std::size_t>(count));
  for (std::int64_t rank = 0; rank < count; ++rank) {
    const std::string_view line = text.substr(0, text.find('\n'));
    add_merge(line, rank, what);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
}

BytePairs::BytePairs(std::string_view text, const std::unordered_map<std::string, std::int32_t>& ids, std::int32_t unknown,
                     std::string_view what) {
  add_bytes();
  for (std::int64_t rank = 0; !text.empty();) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) add_merge(line, rank++, what);
  }
  id_of_.assign(bytes_.size(), unknown);
  for (const auto& [spelling, symbol] : symbols_) {
    const auto found = ids.find(spelling);
    if (found == ids.end()) continue;
    id_of_[static_cast<std::size_t>(symbol)] = found->second;
    symbol_of_[found->second] = symbol;
  }
}

std::vector<std::string> BytePairs::spellings() const {
  std::vector<std::string> out(bytes_.size());
  for (const auto& [spelling, symbol] : symbols_) out[static_cast<std::size_t>(symbol)] = spelling;
  return out;
}

std::size_t BytePairs::symbol_of(std::int32_t id) const {
  if (id_of_.empty()) return id >= 0 && static_cast<std::size_t>(id) < bytes_.size() ? static_cast<std::size_t>(id) : std::string::npos;
  const auto found = symbol_of_.find(id);
  return found == symbol_of_.end() ? std::string::npos : static_cast<std::size_t>(found->second);
}

std::string_view BytePairs::bytes(std::int32_t id) const {
  const std::size_t symbol = symbol_of(id);
  return symbol == std::string::npos ? std::string_view() : std::string_view(bytes_[symbol]);
}

bool BytePairs::ends_word(std::int32_t id) const {
  const std::size_t symbol = symbol_of(id);
  return symbol != std::string::npos && ends_word_[symbol];
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
  if (!id_of_.empty()) {
    for (std::int32_t& symbol : symbols) symbol = id_of_[static_cast<std::size_t>(symbol)];
  }
  return symbols;
}

}  // namespace twinlens
