#include <algorithm>

#include "clip/src/embedded.h"
#include "clip/src/text/bpe.h"
#include "clip/src/text/framed.h"
#include "clip/src/text/unicode.h"
#include "clip/src/text/word_cache.h"
#include "clip/src/text/words.h"

#include "twinlens/clip/tokenizer.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

struct Special {
  std::string_view name;
  bool starts;
};
std::vector<Special> specials_of(SpecialNames names) {
  constexpr Special kOpenClip[] = {{"<start_of_text>", true}, {"<end_of_text>", false}};
  constexpr Special kOpenAi[] = {{"<|startoftext|>", true}, {"<|endoftext|>", false}};
  std::vector<Special> out;
  if (names == SpecialNames::both || names == SpecialNames::open_clip) out.insert(out.end(), std::begin(kOpenClip), std::end(kOpenClip));
  if (names == SpecialNames::both || names == SpecialNames::openai) out.insert(out.end(), std::begin(kOpenAi), std::end(kOpenAi));
  return out;
}

class ClipTokenizer final : public Tokenizer {
 public:
  ClipTokenizer(const ClipTokenizerOptions& options, BytePairs pairs, std::int64_t vocab_size, std::int32_t start, std::int32_t end)
      : options_(options),
        pairs_(std::move(pairs)),
        vocab_size_(vocab_size),
        start_(start),
        end_(end),
        specials_(specials_of(options.special_names)) {
    for (const Special& special : specials_) special_names_.push_back(special.name);
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::string clean = clean_text(text, options_.cleaning);
    if (options_.lower_case) clean = lower_case(std::move(clean), false);
    std::vector<std::int32_t> ids;
    ids.reserve(2 + clean.size() / 2);  // start and end included, which tokenize() adds
    WordCaches::Lease cache(caches_);
    WordScanner scanner(clean, special_names_);
    for (std::string_view word; scanner.next(word);) {
      if (cache->find(word, ids)) continue;
      const std::size_t before = ids.size();
      append_word(word, ids);
      cache->put(word, ids.data() + before, ids.size() - before);
    }
    return ids;
  }

  Tokens tokenize(std::string_view text, std::int64_t context_length) const override {
    return framed(encode(text), context_length, start_, end_);
  }

  std::string decode(const std::vector<std::int32_t>& ids) const override {
    const std::string_view start = options_.special_names == SpecialNames::openai ? "<|startoftext|>" : "<start_of_text>";
    const std::string_view end = options_.special_names == SpecialNames::openai ? "<|endoftext|>" : "<end_of_text>";
    std::string bytes;
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= vocab_size()) {
        throw ConfigError("token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size()) +
                          "; decode; use the tokenizer that made the ids");
      }
      if (id == start_ || id == end_) {
        bytes += id == start_ ? start : end;
      } else {
        bytes += pairs_.bytes(id);
        if (pairs_.ends_word(id)) bytes += ' ';
      }
    }
    return valid_utf8(bytes);
  }

  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int32_t start_id() const override { return start_; }
  std::int32_t end_id() const override { return end_; }
  std::int32_t pad_id() const override { return options_.pad_id; }

 private:
  void append_word(std::string_view word, std::vector<std::int32_t>& ids) const {
    for (const Special& special : specials_) {
      if (word != special.name) continue;
      ids.push_back(special.starts ? start_ : end_);
      return;
    }
    const std::vector<std::int32_t> merged = pairs_.merge_word(word);
    ids.insert(ids.end(), merged.begin(), merged.end());
  }

  ClipTokenizerOptions options_;
  BytePairs pairs_;
  std::int64_t vocab_size_;
  std::int32_t start_, end_;
  std::vector<Special> specials_;
  std::vector<std::string_view> special_names_;
  mutable WordCaches caches_;
};

constexpr const char* kBuiltIn = "built-in vocabulary bpe_simple_vocab_16e6";

}  // namespace

std::string built_in_merges(std::int64_t count) {
  const std::string text = gunzip_lines(embedded(Embedded::bpe_vocabulary_gz), count + 1, kBuiltIn);
  return text.substr(text.find('\n') + 1);  // line 0 is a header
}

std::shared_ptr<const Tokenizer> clip_tokenizer(const ClipTokenizerOptions& options) {
  if (options.vocab_size < kLeastTokens || options.vocab_size > kMostTokens) {
    throw ConfigError("vocab_size " + std::to_string(options.vocab_size) + " is not possible; clip_tokenizer; use " +
                      std::to_string(kLeastTokens) + " to " + std::to_string(kMostTokens));
  }
  const std::int64_t count = options.vocab_size - kLeastTokens;
  BytePairs pairs(built_in_merges(count), count, kBuiltIn);
  const auto last = static_cast<std::int32_t>(options.vocab_size - 1);
  return std::make_shared<ClipTokenizer>(options, std::move(pairs), options.vocab_size, last - 1, last);
}

std::shared_ptr<const Tokenizer> clip_tokenizer(const std::unordered_map<std::string, std::int32_t>& ids, std::string_view merges,
                                                const std::string& source, const ClipTokenizerOptions& options) {
  std::int32_t last = 1;
  for (const auto& [spelling, id] : ids) {
    if (id < 0) throw FileError("token '" + spelling + "' has the id " + std::to_string(id) + "; " + source + "; use ids from 0");
    last = std::max(last, id);
  }
  const auto named = [&](std::initializer_list<const char*> names, std::int32_t otherwise) {
    for (const char* name : names) {
      if (const auto found = ids.find(name); found != ids.end()) return found->second;
    }
    return otherwise;
  };
  const std::int32_t start = named({"<|startoftext|>", "<start_of_text>"}, last - 1), end = named({"<|endoftext|>", "<end_of_text>"}, last);
  return std::make_shared<ClipTokenizer>(options, BytePairs(merges, ids, end, source), std::int64_t{last} + 1, start, end);
}

}  // namespace twinlens
