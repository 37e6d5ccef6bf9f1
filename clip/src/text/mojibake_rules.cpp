#include "clip/src/text/mojibake_rules.h"

#include <algorithm>
#include <charconv>

#include "clip/src/embedded.h"
#include "clip/src/text/unicode.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// Takes the text up to `separator` off the front.
std::string_view take(std::string_view& text, char separator) {
  const std::string_view head = text.substr(0, text.find(separator));
  text.remove_prefix(std::min(text.size(), head.size() + 1));
  return head;
}

char32_t from_hex(std::string_view text) {
  std::uint32_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

std::u32string from_hex_list(std::string_view text) {
  std::u32string out;
  while (!text.empty()) out += from_hex(take(text, ' '));
  return out;
}

CodePage parse_page(std::string_view text) {
  CodePage page;
  page.name = take(text, ' ');
  page.sloppy = page.name.starts_with("sloppy");
  const std::u32string upper = from_hex_list(text);
  for (std::size_t i = 0; i < 128; ++i) {
    page.upper[i] = upper.at(i);
    page.byte_of[upper[i]] = static_cast<std::uint8_t>(0x80 + i);
  }
  if (page.sloppy) page.byte_of[0xFFFD] = 0x1A;
  return page;
}

MojibakeRules parse(std::string_view text) {
  MojibakeRules rules;
  while (!text.empty()) {
    std::string_view line = take(text, '\n');
    const std::string_view kind = take(line, ' ');
    if (kind == "page") {
      rules.pages.push_back(parse_page(line));
    } else if (kind == "bad") {
      rules.bad.add(line);
    } else if (kind == "altered") {
      rules.altered.add(line);
    } else if (kind == "lossy") {
      rules.lossy.add(line);
    } else if (kind == "clue") {
      const std::string_view name = take(line, ' ');
      rules.clues.emplace(name, CharSet(line));
    } else if (kind == "ligature") {
      const char32_t c = from_hex(take(line, ' '));
      rules.ligatures[c] = from_hex_list(line);
    }
  }
  rules.bad.index();
  rules.altered.index();
  rules.lossy.index();
  return rules;
}

}  // namespace

CharSet::CharSet(std::string_view text) {
  if (text.starts_with('!')) {
    negated_ = true;
    text.remove_prefix(1);
  }
  while (!text.empty()) {
    std::string_view part = take(text, ',');
    if (part == "s" || part == "w") {
      (part == "s" ? space_ : word_) = true;
      continue;
    }
    const char32_t low = from_hex(take(part, '-'));
    ranges_.emplace_back(low, part.empty() ? low : from_hex(part));
  }
  for (const auto& [low, high] : ranges_) {
    for (char32_t c = low; c <= high && c < kTable; ++c) table_[c] = true;
  }
  for (char32_t c = 0; (space_ || word_) && c < kTable; ++c) {
    if (computed(c) != negated_) table_[c] = true;
  }
  if (negated_) table_.flip();
}

bool CharSet::computed(char32_t c) const {
  bool in = std::any_of(ranges_.begin(), ranges_.end(), [c](const auto& r) { return r.first <= c && c <= r.second; });
  if (space_) in = in || is_python_space(c);
  if (word_) in = in || c == '_' || class_of(c) == CharClass::letter || class_of(c) == CharClass::number;
  return in != negated_;
}

std::vector<char32_t> CharSet::high_members() const {
  std::vector<char32_t> out;
  for (const auto& [low, high] : ranges_) {
    for (char32_t c = std::max(low, kTable); c <= high; ++c) out.push_back(c);
  }
  if (space_) out.push_back(0x3000);
  return out;
}

void Sequences::add(std::string_view text) {
  Sequence s;
  if (text.starts_with("^ ")) {
    s.at_start = true;
    text.remove_prefix(2);
  }
  while (!text.empty()) s.sets.emplace_back(take(text, ' '));
  sequences_.push_back(std::move(s));
}

std::uint64_t Sequences::slow_mask(char32_t c, std::size_t position) const {
  std::uint64_t out = 0;
  for (std::size_t k = 0; k < sequences_.size(); ++k) {
    const auto& sets = sequences_[k].sets;
    if (position >= sets.size() || sets[position].contains(c)) out |= std::uint64_t{1} << k;
  }
  return out;
}

void Sequences::index() {
  if (sequences_.size() > 64) throw Error("more than 64 rules of one kind; mojibake.txt; make the masks wider");
  for (std::size_t p = 0; p < 2; ++p) {
    table_[p].assign(CharSet::kTable, 0);
    for (std::size_t k = 0; k < sequences_.size(); ++k) {
      const auto& sets = sequences_[k].sets;
      for (char32_t c = 0; c < CharSet::kTable; ++c) {
        if (p >= sets.size() || sets[p].contains(c)) table_[p][c] |= std::uint64_t{1} << k;
      }
    }
    high_[p] = slow_mask(0x4E00, p);
  }
  for (std::size_t k = 0; k < sequences_.size(); ++k) {
    const auto& sets = sequences_[k].sets;
    if (sets.size() == 1) single_ |= std::uint64_t{1} << k;
    for (std::size_t p = 0; p < std::min<std::size_t>(2, sets.size()); ++p) {
      const std::vector<char32_t> high = sets[p].high_members();
      special_.insert(special_.end(), high.begin(), high.end());
    }
  }
  std::sort(special_.begin(), special_.end());
  special_.erase(std::unique(special_.begin(), special_.end()), special_.end());
}

std::uint64_t Sequences::mask(char32_t c, std::size_t position) const {
  if (c < CharSet::kTable) return table_[position][c];
  return std::binary_search(special_.begin(), special_.end(), c) ? slow_mask(c, position) : high_[position];
}

bool Sequences::fits(const Sequence& s, std::u32string_view text, std::size_t i) const {
  if ((s.at_start && i != 0) || text.size() - i < s.sets.size()) return false;
  for (std::size_t k = 0; k < s.sets.size(); ++k) {
    if (!s.sets[k].contains(text[i + k])) return false;
  }
  return true;
}

std::size_t Sequences::match(std::u32string_view text, std::size_t i) const {
  for (const Sequence& s : sequences_) {
    if (fits(s, text, i)) return s.sets.size();
  }
  return 0;
}

bool Sequences::found_in(std::u32string_view text) const {
  for (std::size_t i = 0; i < text.size(); ++i) {
    std::uint64_t left = mask(text[i], 0);
    if (left == 0) continue;
    left &= i + 1 < text.size() ? mask(text[i + 1], 1) : single_;
    for (std::size_t k = 0; left != 0; ++k, left >>= 1) {
      if ((left & 1) != 0 && fits(sequences_[k], text, i)) return true;
    }
  }
  return false;
}

std::optional<std::u32string> CodePage::encode(std::u32string_view text) const {
  std::u32string bytes;
  bytes.reserve(text.size());
  for (const char32_t c : text) {
    if (c < 0x80 && !(sloppy && c == 0x1A)) {
      bytes += c;
      continue;
    }
    const auto found = byte_of.find(c);
    if (found == byte_of.end()) return {};
    bytes += char32_t{found->second};
  }
  return bytes;
}

const CodePage& MojibakeRules::page(std::string_view name) const {
  return *std::find_if(pages.begin(), pages.end(), [name](const CodePage& p) { return p.name == name; });
}

const MojibakeRules& mojibake_rules() {
  static const MojibakeRules rules = parse(embedded(Embedded::mojibake));
  return rules;
}

}  // namespace twinlens
