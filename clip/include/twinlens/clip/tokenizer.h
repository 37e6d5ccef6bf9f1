#pragma once
// Text to token ids and back. `Tokenizer` is what the rest of the library knows; `clip_tokenizer()` makes CLIP's byte-level BPE
// (Radford et al. 2021, section 2.4; Sennrich et al. 2016, arXiv:1508.07909), id for id the one of OpenAI and open_clip.
//
// A tokenizer is immutable but for an internal word cache that locks itself: one object serves all threads.
// Text is UTF-8; bytes that are not become U+FFFD. No text is an error.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace twinlens {

struct Tokens {
  std::vector<std::int32_t> ids;  // [start, body..., end], not padded
  bool truncated = false;         // the body did not fit and was cut
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // The body: ids without start and end of text.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // [start, body, end] cut to `context_length` (at least 2) with the end kept. Throws ConfigError when context_length < 2.
  virtual Tokens tokenize(std::string_view text, std::int64_t context_length) const = 0;
  // UTF-8 text of the ids, every word followed by a space; start and end appear as their names. Throws ConfigError for an id outside
  // the vocabulary.
  virtual std::string decode(const std::vector<std::int32_t>& ids) const = 0;

  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t start_id() const = 0;
  virtual std::int32_t end_id() const = 0;

 protected:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = default;
  Tokenizer& operator=(const Tokenizer&) = default;
};

// What is done to a text before it is split into words:
//   none   HTML character references resolved twice, white space collapsed and stripped, full Unicode lower-casing
//   ftfy   before that what ftfy.fix_text does, as OpenAI's and open_clip's tokenizers run it: captions that were decoded by a wrong encoding
//          are repaired, quotes uncurled, ligatures and full-width forms undone, control characters removed, normal form C
enum class Cleaning { none, ftfy };

// Names in a caption that mean the start and end of text themselves. open_clip knows the first pair, OpenAI the second.
enum class SpecialNames {
  both,       // default
  open_clip,  // <start_of_text>, <end_of_text>
  openai,     // <|startoftext|>, <|endoftext|>
  off,        // such a text is ordinary text
};

struct ClipTokenizerOptions {
  // 512 byte symbols + merges + start + end. Smaller vocabularies use the first merges: 514 has none.
  std::int64_t vocab_size = 49408;
  Cleaning cleaning = Cleaning::none;
  SpecialNames special_names = SpecialNames::both;
};

// CLIP's tokenizer with the built-in vocabulary. Throws ConfigError when vocab_size is not in [514, 49408].
std::shared_ptr<const Tokenizer> clip_tokenizer(const ClipTokenizerOptions& options = {});

// The text as the word splitter sees it.
std::string clean_text(std::string_view text, Cleaning cleaning);

}  // namespace twinlens
