#include "clip/src/text/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "clip/src/text/hash_text.h"
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

void TextBlock::add(std::string_view first, std::string_view second) {
  text_ += first;
  text_ += second;
  begins_.push_back(static_cast<std::uint32_t>(text_.size()));
}

void TextBlock::drop_last() {
  begins_.pop_back();
  text_.resize(begins_.back());
}

std::size_t TextTable::slot_of(std::string_view text, std::uint64_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = static_cast<std::size_t>(hash >> 32U) & mask;
  for (; slots_[i].number >= 0; i = (i + 1) & mask) {
    if (slots_[i].hash == static_cast<std::uint32_t>(hash) && texts_[static_cast<std::size_t>(slots_[i].number)] == text) break;
  }
  return i;
}

std::int32_t TextTable::find(std::string_view text) const { return slots_[slot_of(text, hash_text(text))].number; }

std::int32_t TextTable::add(std::string_view first, std::string_view second) {
  texts_.add(first, second);
  const std::string_view text = texts_[texts_.size() - 1];
  const std::uint64_t hash = hash_text(text);
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.number >= 0) {
    texts_.drop_last();
    return slot.number;
  }
  const auto number = static_cast<std::int32_t>(texts_.size() - 1);
  slot = {static_cast<std::uint32_t>(hash), number};
  reserve(texts_.size());
  return number;
}

void TextTable::reserve(std::size_t count) {
  if (2 * count > slots_.size()) resize(std::bit_ceil(2 * count));
}

void TextTable::resize(std::size_t slots) {
  slots_.assign(slots, {});
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    const std::uint64_t hash = hash_text(texts_[i]);
    slots_[slot_of(texts_[i], hash)] = {static_cast<std::uint32_t>(hash), static_cast<std::int32_t>(i)};
  }
}

std::size_t PairTable::slot_of(std::uint64_t pair) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t i = static_cast<std::size_t>((pair ^ pair >> 32U) * 0x9E3779B97F4A7C15U >> 32U) & mask;
  while (slots_[i].pair != kFree && slots_[i].pair != pair) i = (i + 1) & mask;
  return i;
}

const PairTable::Merge* PairTable::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[slot_of(pair_key(left, right))];
  return slot.pair == kFree ? nullptr : &slot.merge;
}

void PairTable::add(std::int32_t left, std::int32_t right, Merge merge) {
  Slot& slot = slots_[slot_of(pair_key(left, right))];
  if (slot.pair != kFree) return;
  slot = {pair_key(left, right), merge};
  reserve(++used_);
}

void PairTable::reserve(std::size_t count) {
  if (2 * count > slots_.size()) resize(std::bit_ceil(2 * count));
}

void PairTable::resize(std::size_t slots) {
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots));
  for (const Slot& slot : old) {
    if (slot.pair != kFree) slots_[slot_of(slot.pair)] = slot;
  }
}

void BytePairs::start(std::size_t merges) {
  symbols_.reserve(512 + merges);
  merges_.reserve(merges);
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
        symbols_.add(spelling);
        ++id;
        const char itself = static_cast<char>(byte);
        bytes_.add(std::string_view(&itself, 1));
        ends_word_.push_back(ends);
      }
    }
  }
}

std::int32_t BytePairs::add_merge(std::string_view line, std::int64_t rank, std::string_view what) {
  const std::size_t space = line.find(' ');
  const std::string_view left = line.substr(0, space), right = space == std::string_view::npos ? left : line.substr(space + 1);
  const std::int32_t l = symbols_.find(left), r = space == std::string_view::npos ? -1 : symbols_.find(right);
  if (l < 0 || r < 0) {
    throw FileError("merge " + std::to_string(rank) + " '" + std::string(line) + "' is not a pair of known tokens; " + std::string(what) +
                    "; use a merges file in order of rank");
  }
  const std::int32_t merged = symbols_.add(left, right);
  if (static_cast<std::size_t>(merged) == bytes_.size()) {
    const std::string first(bytes_[static_cast<std::size_t>(l)]);  // a copy: what it stands in grows
    const std::string second(bytes_[static_cast<std::size_t>(r)]);
    bytes_.add(first, second);
    ends_word_.push_back(ends_word_[static_cast<std::size_t>(r)]);
  }
  merges_.add(l, r, {static_cast<std::int32_t>(rank), merged});
  return merged;
}

BytePairs::BytePairs(std::string_view text, std::int64_t count, std::string_view what) {
  start(static_cast<std::size_t>(count));
  for (std::int64_t rank = 0; rank < count; ++rank) {
    const std::string_view line = text.substr(0, text.find('\n'));
    add_merge(line, rank, what);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
}

BytePairs::BytePairs(std::string_view text, const std::unordered_map<std::string, std::int32_t>& ids, std::int32_t unknown,
                     std::string_view what) {
  start(text.size() / 9);  // bytes of a usual line
  for (std::int64_t rank = 0; !text.empty();) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const std::int32_t merged = add_merge(line, rank++, what);
    if (const std::string token(symbols_.texts()[static_cast<std::size_t>(merged)]); ids.find(token) == ids.end()) {
      throw FileError("merge " + std::to_string(rank - 1) + " '" + std::string(line) + "' makes '" + token + "', which has no id; " +
                      std::string(what) + "; use the vocabulary and the merges of one tokenizer");
    }
  }
  id_of_.assign(bytes_.size(), unknown);
  for (std::size_t symbol = 0; symbol < symbols_.texts().size(); ++symbol) {
    const auto found = ids.find(std::string(symbols_.texts()[symbol]));
    if (found == ids.end()) continue;
    id_of_[symbol] = found->second;
    symbol_of_[found->second] = static_cast<std::int32_t>(symbol);
  }
}

std::vector<std::string> BytePairs::spellings() const {
  std::vector<std::string> out(bytes_.size());
  for (std::size_t symbol = 0; symbol < out.size(); ++symbol) out[symbol] = symbols_.texts()[symbol];
  return out;
}

std::size_t BytePairs::symbol_of(std::int32_t id) const {
  if (id_of_.empty()) return id >= 0 && static_cast<std::size_t>(id) < bytes_.size() ? static_cast<std::size_t>(id) : std::string::npos;
  const auto found = symbol_of_.find(id);
  return found == symbol_of_.end() ? std::string::npos : static_cast<std::size_t>(found->second);
}

std::string_view BytePairs::bytes(std::int32_t id) const {
  const std::size_t symbol = symbol_of(id);
  return symbol == std::string::npos ? std::string_view() : bytes_[symbol];
}

bool BytePairs::ends_word(std::int32_t id) const {
  const std::size_t symbol = symbol_of(id);
  return symbol != std::string::npos && ends_word_[symbol];
}

std::vector<std::int32_t> BytePairs::merge_word(std::string_view word) const {
  std::vector<std::int32_t> symbols(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) symbols[i] = id_of_byte_[static_cast<unsigned char>(word[i])];
  if (symbols.empty()) return symbols;
  symbols.back() += 256;
  // What each symbol and the next would become. Only pairs beside a new symbol are looked up anew.
  constexpr PairTable::Merge kNone{std::numeric_limits<std::int32_t>::max(), 0};
  const auto merge_at = [&](std::size_t i) {
    const PairTable::Merge* merge = i + 1 < symbols.size() ? merges_.find(symbols[i], symbols[i + 1]) : nullptr;
    return merge == nullptr ? kNone : *merge;
  };
  std::vector<PairTable::Merge> merges(symbols.size());
  for (std::size_t i = 0; i < symbols.size(); ++i) merges[i] = merge_at(i);
  while (true) {
    const auto best = std::min_element(merges.begin(), merges.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
    if (best->rank == kNone.rank) break;
    // All occurrences of the pair, left to right. (A rank belongs to one pair.)
    const PairTable::Merge merge = *best;
    std::size_t out = static_cast<std::size_t>(best - merges.begin());
    const std::size_t first = out;
    for (std::size_t i = first; i < symbols.size(); ++out) {
      const bool here = merges[i].rank == merge.rank;
      symbols[out] = here ? merge.id : symbols[i];
      merges[out] = here ? kNone : merges[i];
      i += here ? 2 : 1;
    }
    symbols.resize(out);
    merges.resize(out);
    for (std::size_t i = first == 0 ? 0 : first - 1; i < out; ++i) {
      if (symbols[i] == merge.id || (i + 1 < out && symbols[i + 1] == merge.id)) merges[i] = merge_at(i);
    }
  }
  if (!id_of_.empty()) {
    for (std::int32_t& symbol : symbols) symbol = id_of_[static_cast<std::size_t>(symbol)];
  }
  return symbols;
}

}  // namespace twinlens
