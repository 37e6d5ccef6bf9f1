#pragma once
// The tokenizer that a model's configuration and folder name, and vocabularies made anew.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "twinlens/clip/tokenizer.h"

namespace twinlens {

// What open_clip's text_cfg says: hf_tokenizer_name (empty: CLIP's), tokenizer_kwargs (a JSON object as text, or empty; `clean` and
// `strip_sep_token` are understood), vocab_size.
struct TokenizerChoice {
  std::string hf_tokenizer_name, tokenizer_kwargs;
  std::int64_t vocab_size = 49408;
};

// What the choice says of the text, with open_clip's defaults. Throws ConfigError for an option that is not understood.
struct TokenizerOptions {
  Cleaning cleaning;
  bool strip_sep_token = false;
};
TokenizerOptions tokenizer_options(const TokenizerChoice& choice);

// The tokenizer in `folder` (empty: none). With a hf_tokenizer_name a SentencePiece model (spiece.model, sentencepiece.model,
// tokenizer.model), else tokenizer.json, else vocab.txt, else vocab.json with merges.txt. Without one these two, else the tokenizer.json of
// a Hugging Face folder (config.json), else CLIP's own, which needs no files. Throws ConfigError when the choice names a tokenizer that the
// folder does not hold, for an option that is not understood and for what is not implemented, FileError for damaged files.
std::shared_ptr<const Tokenizer> find_tokenizer(const std::string& folder, const TokenizerChoice& choice);

// The names of the files above that exist in a folder: what must go along when a model is copied.
std::vector<std::string> tokenizer_files_in(const std::string& folder);
// Where they are looked for when --model names `model`: that folder, or the one of that file; empty for a built-in name.
std::string tokenizer_folder(const std::string& model);
// Their names and contents, of the model `model` (of a CLIP with tokenizer.json only vocab.json and merges.txt, too); and into the model
// folder `to`, each atomically.
using TokenizerFiles = std::vector<std::pair<std::string, std::string>>;
TokenizerFiles read_tokenizer_files(const std::string& model);
void write_tokenizer_files(const TokenizerFiles& files, const std::string& to);
// Those of CLIP's own tokenizer with the built-in vocabulary (clip_tokenizer()), as Hugging Face's CLIPTokenizer takes them;
// none for fewer tokens than it has (514).
TokenizerFiles clip_tokenizer_files(std::int64_t vocab_size, std::int64_t context_length);

// Trains a byte-level BPE: CLIP's word splitting, then the most frequent pair of neighbouring symbols is merged, again and again. Of
// equally frequent pairs the one with the smaller left symbol goes first, then that with the smaller right one, in the numbering of
// BytePairs: 256 bytes, 256 bytes that end a word, merges in order. Memory is that of the distinct words.
class BpeTrainer {
 public:
  explicit BpeTrainer(Cleaning cleaning = Cleaning::ftfy) : cleaning_(cleaning) {}
  void add(std::string_view text);
  std::int64_t distinct_words() const { return static_cast<std::int64_t>(words_.size()); }
  // Merges as spellings, until 512 + merges + 2 = vocab_size or no pair is left. Throws ConfigError for a vocab_size below 514.
  std::vector<std::pair<std::string, std::string>> train(std::int64_t vocab_size) const;

 private:
  Cleaning cleaning_;
  std::unordered_map<std::string, std::int64_t> words_;
};

// vocab.json and merges.txt as Hugging Face's CLIPTokenizer reads them, each written atomically. The folder is made when it is missing.
// Returns the number of tokens.
std::int64_t write_bpe(const std::string& folder, const std::vector<std::pair<std::string, std::string>>& merges);

}  // namespace twinlens
