#pragma once
// Text to token ids and back. `Tokenizer` is what the rest of the library knows; `clip_tokenizer()` makes CLIP's byte-level BPE
// (Radford et al. 2021, section 2.4; Sennrich et al. 2016, arXiv:1508.07909), id for id the one of OpenAI and open_clip; the others are
// those of SigLIP (SentencePiece) and CLIPA (WordPiece). tokenizer_files.h finds the one that a model folder holds.
//
// A tokenizer is immutable but for caches of words, one for each thread that is in it at once (4 MB): one object serves all threads.
// Text is UTF-8; bytes that are not become U+FFFD. No text is an error.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace twinlens {

struct Tokens {
  std::vector<std::int32_t> ids;  // [start, body..., end], not padded; without start where the tokenizer has none
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
  virtual std::int32_t start_id() const = 0;  // -1: none
  virtual std::int32_t end_id() const = 0;
  virtual std::int32_t pad_id() const { return 0; }  // what fills a row up to the context length; -1: the files do not say

 protected:
  Tokenizer() = default;
  Tokenizer(const Tokenizer&) = default;
  Tokenizer& operator=(const Tokenizer&) = default;
};

// What is done to a text before it is split into words. All but `none` begin with what ftfy.fix_text does: captions that were decoded by a
// wrong encoding are repaired, quotes uncurled, ligatures and full-width forms undone, control characters removed, normal form C.
enum class Cleaning {
  none,          // HTML character references resolved twice, white space collapsed and stripped, full Unicode lower-casing
  ftfy,          // the same after ftfy: what OpenAI's and open_clip's tokenizers run; open_clip calls it `lower`
  whitespace,    // ftfy, without lower-casing
  canonicalize,  // ftfy, then `_` to a space and ASCII punctuation away: SigLIP
};
// By these names, and `lower` for ftfy. Throws ConfigError for another.
Cleaning parse_cleaning(std::string_view name);

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
  bool lower_case = false;  // after cleaning, each letter by itself, as the normalizer of Hugging Face's CLIP tokenizers does
  SpecialNames special_names = SpecialNames::both;
  std::int32_t pad_id = 0;
};

// CLIP's tokenizer with the built-in vocabulary. Throws ConfigError when vocab_size is not in [514, 49408].
std::shared_ptr<const Tokenizer> clip_tokenizer(const ClipTokenizerOptions& options = {});

// A byte-level BPE of Hugging Face's files: `ids` gives the id of every token by its spelling (vocab.json), `merges` has a pair a line
// (merges.txt, with or without its first line "#version"). Start and end are <|startoftext|> and <|endoftext|> or open_clip's names for
// them, else the last two ids; a byte without an id becomes the end, as CLIP's unknown token is. options.vocab_size is not used. Throws
// FileError naming `source`, also for a merge that makes what has no id.
std::shared_ptr<const Tokenizer> clip_tokenizer(const std::unordered_map<std::string, std::int32_t>& ids, std::string_view merges,
                                                const std::string& source, const ClipTokenizerOptions& options = {});

// BERT's WordPiece as Hugging Face runs it for uncased vocabularies (Devlin et al. 2019): [CLS] body [SEP]. `tokens` in order of their ids.
struct WordPieceOptions {
  Cleaning cleaning = Cleaning::whitespace;
  bool lower_case = true;        // and accents away
  bool strip_sep_token = false;  // CLIPA: 0 in the place of [SEP]
};
// Throws FileError naming `source` when [UNK], [CLS] or [SEP] is missing.
std::shared_ptr<const Tokenizer> word_piece_tokenizer(const std::vector<std::string>& tokens, const std::string& source,
                                                      const WordPieceOptions& options = {});

// SigLIP's: a SentencePiece model (the bytes of a .model file; Kudo and Richardson 2018, arXiv:1808.06226), body and </s>. Throws FileError
// naming `source` when the model cannot be read or is damaged, ConfigError in a build without libsentencepiece.
struct SentencePieceOptions {
  Cleaning cleaning = Cleaning::canonicalize;
  std::int32_t start_id = -1;  // before the body, as XLM-R's <s>; -1: nothing
  std::string pad_token = {};  // empty: </s> as SigLIP does (T5 itself has <pad>), or the pad of a model with a start or another end
};
std::shared_ptr<const Tokenizer> sentence_piece_tokenizer(std::string_view model, const std::string& source,
                                                          const SentencePieceOptions& options = {});
bool sentence_piece_available();

// The text as the word splitter sees it.
std::string clean_text(std::string_view text, Cleaning cleaning);

}  // namespace twinlens
