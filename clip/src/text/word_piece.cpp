// BERT's tokenizer. Classes of characters are those of ICU's Unicode; Hugging Face's Rust crate has those of Unicode 8, so characters that
// are younger than that may be split otherwise.

#include <algorithm>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include "clip/src/text/framed.h"
#include "clip/src/text/unicode.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Text = std::u32string;

// Cc, Cf and Co, but for what counts as white space.
bool is_control(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK)) != 0;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_P_MASK) != 0;
}

bool is_space(char32_t c) { return class_of(static_cast<std::uint32_t>(c)) == CharClass::space; }

// The blocks that BERT splits character by character.
bool is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// The canonical decomposition without nonspacing marks, each character in lower case by itself.
Text small_without_accents(const Text& text) {
  UErrorCode status = U_ZERO_ERROR;
  static const icu::Normalizer2* const form = icu::Normalizer2::getNFDInstance(status);
  const icu::UnicodeString decomposed = form->normalize(icu::UnicodeString::fromUTF8(to_utf8(text)), status);
  Text out;
  for (std::int32_t i = 0; i < decomposed.length(); i = decomposed.moveIndex32(i, 1)) {
    const UChar32 c = decomposed.char32At(i);
    if (u_charType(c) == U_NON_SPACING_MARK) continue;
    if (c < 0x80) {
      out += static_cast<char32_t>(u_tolower(c));
    } else {
      out += to_utf32(lower_case(to_utf8(Text(1, static_cast<char32_t>(c)))));
    }
  }
  return out;
}

class WordPiece final : public Tokenizer {
 public:
  WordPiece(const std::vector<std::string>& tokens, const std::string& source, const WordPieceOptions& options)
      : options_(options), tokens_(tokens) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) ids_.emplace(tokens_[i], static_cast<std::int32_t>(i));
    unknown_ = special("[UNK]", source);
    start_ = special("[CLS]", source);
    separator_ = special("[SEP]", source);
    for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
      if (ids_.count(name) != 0) specials_.emplace_back(name);
    }
    if (const auto pad = ids_.find("[PAD]"); pad != ids_.end()) pad_ = pad->second;
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    const std::string clean = clean_text(text, options_.cleaning);
    std::vector<std::int32_t> ids;
    std::size_t begin = 0;
    for (std::size_t i = 0; i < clean.size();) {
      const std::string* found = nullptr;
      for (const std::string& name : specials_) {
        if (clean[i] == '[' && clean.compare(i, name.size(), name) == 0) found = &name;
      }
      if (found == nullptr) {
        ++i;
        continue;
      }
      append_text(std::string_view(clean).substr(begin, i - begin), ids);
      ids.push_back(ids_.at(*found));
      i += found->size();
      begin = i;
    }
    append_text(std::string_view(clean).substr(begin), ids);
    if (options_.strip_sep_token) std::replace(ids.begin(), ids.end(), separator_, 0);
    return ids;
  }

  Tokens tokenize(std::string_view text, std::int64_t context_length) const override {
    return framed(encode(text), context_length, start_, end_id());
  }

  std::string decode(const std::vector<std::int32_t>& ids) const override {
    std::string out;
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        throw ConfigError("token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size()) +
                          "; decode; use the tokenizer that made the ids");
      }
      const std::string& token = tokens_[static_cast<std::size_t>(id)];
      if (token.starts_with("##")) {
        if (!out.empty()) out.pop_back();
        out += token.substr(2);
      } else {
        out += token;
      }
      out += ' ';
    }
    return out;
  }

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::int32_t start_id() const override { return start_; }
  std::int32_t end_id() const override { return options_.strip_sep_token ? 0 : separator_; }
  std::int32_t pad_id() const override { return pad_; }

 private:
  std::int32_t special(const char* name, const std::string& source) const {
    const auto found = ids_.find(name);
    if (found == ids_.end()) throw FileError(std::string("the vocabulary has no ") + name + "; " + source + "; use BERT's vocab.txt");
    return found->second;
  }

  // Words: between spaces; punctuation and ideographs stand alone.
  void append_text(std::string_view text, std::vector<std::int32_t>& ids) const {
    Text plain;
    for (const char32_t c : to_utf32(text)) {
      if (c == 0 || c == 0xFFFD || is_control(c)) continue;
      if (is_ideograph(c)) plain += U' ';
      plain += is_space(c) ? U' ' : c;
      if (is_ideograph(c)) plain += U' ';
    }
    if (options_.lower_case) plain = small_without_accents(plain);
    Text word;
    for (const char32_t c : plain) {
      const bool alone = is_punctuation(c);
      if (alone || is_space(c)) append_word(word, ids);
      if (alone) append_word(word = c, ids);
      if (!alone && !is_space(c)) word += c;
    }
    append_word(word, ids);
  }

  // The longest piece of the vocabulary first, the rest as "##...". Empties `word`.
  void append_word(Text& word, std::vector<std::int32_t>& ids) const {
    constexpr std::size_t kLongest = 100;
    const std::size_t before = ids.size();
    for (std::size_t begin = 0; begin < word.size();) {
      std::size_t end = word.size() > kLongest ? begin : word.size();
      for (; end > begin; --end) {
        std::string piece = begin > 0 ? "##" : "";
        piece += to_utf8(std::u32string_view(word).substr(begin, end - begin));
        const auto found = ids_.find(piece);
        if (found == ids_.end()) continue;
        ids.push_back(found->second);
        break;
      }
      if (end == begin) {  // no piece: the whole word is unknown
        ids.resize(before);
        ids.push_back(unknown_);
        break;
      }
      begin = end;
    }
    word.clear();
  }

  WordPieceOptions options_;
  std::vector<std::string> tokens_, specials_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::int32_t unknown_ = 0, start_ = 0, separator_ = 0, pad_ = -1;
};

}  // namespace

std::shared_ptr<const Tokenizer> word_piece_tokenizer(const std::vector<std::string>& tokens, const std::string& source,
                                                      const WordPieceOptions& options) {
  return std::make_shared<WordPiece>(tokens, source, options);
}

}  // namespace twinlens
