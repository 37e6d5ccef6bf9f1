#include "twinlens/clip/tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "clip/src/model_path.h"
#include "clip/src/text/json_parts.h"
#include "clip/src/text/unigram_model.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSentencePieceNames[] = {"spiece.model", "sentencepiece.model", "tokenizer.model"};

// How a folder's vocabulary is read.
struct VocabularyOptions {
  TokenizerOptions text;
  std::string pad_token;      // that the files beside it name; empty: none
  std::int32_t bpe_pad = -1;  // the id where a BPE's files name none
};

Json parse_json_file(const fs::path& path) {
  constexpr int kDeepest = 64;  // what walks through it calls itself
  try {
    return Json::parse(read_file(path.string()), [&](int depth, Json::parse_event_t, const Json&) {
      if (depth <= kDeepest) return true;
      throw FileError("JSON nested deeper than " + std::to_string(kDeepest) + " levels; " + path.string() + "; fetch the file again");
    });
  } catch (const Json::exception& e) {
    throw FileError("not JSON: " + std::string(e.what()) + "; " + path.string() + "; fetch the file again");
  }
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::vector<std::string> out;
  const std::string text = read_file(path.string());
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    if (!out.back().empty() && out.back().back() == '\r') out.back().pop_back();
    begin = end + 1;
  }
  return out;
}

std::unordered_map<std::string, std::int32_t> ids_of(const Json& vocabulary, const std::string& source) {
  if (!vocabulary.is_object() || vocabulary.empty()) {
    throw FileError("not a vocabulary: " + shown(vocabulary) + "; " + source + "; use an object of tokens and ids");
  }
  std::unordered_map<std::string, std::int32_t> ids;
  for (const auto& [token, id] : vocabulary.items()) ids.emplace(token, token_id(token, id, source));
  return ids;
}

std::shared_ptr<const Tokenizer> bpe_tokenizer(const std::unordered_map<std::string, std::int32_t>& ids, std::string_view merges,
                                               const std::string& source, bool lower_case, const VocabularyOptions& options) {
  ClipTokenizerOptions clip;
  clip.cleaning = options.text.cleaning;
  clip.lower_case = lower_case;
  const auto pad = ids.find(options.pad_token);
  if (pad == ids.end() && !options.pad_token.empty()) refuse_pad(options.pad_token, source);
  clip.pad_id = pad == ids.end() ? options.bpe_pad : pad->second;
  return clip_tokenizer(ids, merges, source, clip);
}

struct BpeParts {
  std::unordered_map<std::string, std::int32_t> ids;
  std::string merges;
};

BpeParts bpe_parts(const Json& json, const std::string& source) {
  const Json& model = json.at("model");
  if (part_of(model, "end_of_word_suffix") != "</w>") {
    throw ConfigError("the BPE of this tokenizer does not end words by </w>, as CLIP's does; " + source +
                      "; only CLIP's kind is supported");
  }
  BpeParts out{ids_of(model.at("vocab"), source), {}};
  for (const Json& token : part_of(json, "added_tokens")) {
    const auto content = token.at("content").get<std::string>();
    out.ids.emplace(content, token_id(content, token.at("id"), source));
  }
  for (const Json& merge : model.at("merges")) {
    out.merges += merge.is_array() ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>() : merge.get<std::string>();
    out.merges += '\n';
  }
  return out;
}

// CLIP's words, with the names of start and end among them or not.
bool splits_as_clip(const std::vector<const Json*>& steps) {
  constexpr const char* kWords = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
  constexpr const char* kNames = R"(<\|startoftext\|>|<\|endoftext\|>|)";
  if (steps.size() != 2 || !is_step(*steps[0], "Split") || !is_step(*steps[1], "ByteLevel")) return false;
  const Json& words = part_of(part_of(*steps[0], "pattern"), "Regex");
  return (words == kWords || words == std::string(kNames) + kWords) && part_of(*steps[0], "behavior") == "Removed" &&
         part_of(*steps[0], "invert") == true && part_of(*steps[1], "add_prefix_space") == false;
}

// A byte-level BPE whose tokens end words by "</w>".
std::shared_ptr<const Tokenizer> read_bpe(const Json& json, const std::string& source, const VocabularyOptions& options) {
  const BpeParts parts = bpe_parts(json, source);
  const Json &model = json.at("model"), &words = part_of(json, "pre_tokenizer");
  check_settings(
      model, "model",
      {{"dropout", 0.0}, {"continuing_subword_prefix", ""}, {"fuse_unk", false}, {"byte_fallback", false}, {"ignore_merges", false}},
      source);
  bool lower_case = false;
  for (const Json* step : steps_of(part_of(json, "normalizer"), "normalizers")) {
    if (is_step(*step, "Lowercase")) {
      lower_case = true;
    } else if (!is_step(*step, "NFC") && !replaces(*step, "\\s+", " ")) {
      refuse_part("normalizer", *step, source, "NFC, white space to one space, Lowercase");
    }
  }
  if (!splits_as_clip(steps_of(words, "pretokenizers"))) refuse_part("pre_tokenizer", words, source, "CLIP's Split, then ByteLevel");
  check_added_tokens(json, source);
  auto tokenizer = bpe_tokenizer(parts.ids, parts.merges, source, lower_case, options);
  if (const Json& unknown = part_of(model, "unk_token"); !unknown.is_null()) {
    const auto found = parts.ids.find(unknown.get<std::string>());
    if (found == parts.ids.end() || found->second != tokenizer->end_id())
      refuse_part("model.unk_token", unknown, source, "the end of text");
  }
  const auto frame = frame_of(json, source);
  if (frame.has_value() && (frame->start != tokenizer->start_id() || frame->end != tokenizer->end_id())) {
    refuse_part("post_processor", json.at("post_processor"), source, "start of text, text, end of text");
  }
  return tokenizer;
}

std::shared_ptr<const Tokenizer> read_word_piece(const Json& json, const std::string& source, const VocabularyOptions& options) {
  const Json& model = json.at("model");
  std::vector<std::string> tokens;
  for (const auto& [token, id] : ids_of(model.at("vocab"), source)) {
    const auto at = static_cast<std::size_t>(id);
    if (tokens.size() <= at) tokens.resize(at + 1);
    tokens[at] = token;
  }
  check_settings(model, "model", {{"unk_token", "[UNK]"}, {"continuing_subword_prefix", "##"}, {"max_input_chars_per_word", 100}}, source);
  const Json &normalizer = part_of(json, "normalizer"), &words = part_of(json, "pre_tokenizer");
  const auto steps = steps_of(normalizer, "normalizers"), splits = steps_of(words, "pretokenizers");
  if (steps.size() != 1 || !is_step(*steps[0], "BertNormalizer")) refuse_part("normalizer", normalizer, source, "BertNormalizer");
  if (splits.size() != 1 || !is_step(*splits[0], "BertPreTokenizer")) refuse_part("pre_tokenizer", words, source, "BertPreTokenizer");
  const bool lower_case = part_of(*steps[0], "lowercase") != false;
  check_settings(*steps[0], "normalizer", {{"clean_text", true}, {"handle_chinese_chars", true}, {"strip_accents", lower_case}}, source);
  check_added_tokens(json, source);
  const auto is_token = [&](std::int32_t id, const char* name) {
    return id >= 0 && static_cast<std::size_t>(id) < tokens.size() && tokens[static_cast<std::size_t>(id)] == name;
  };
  if (const auto frame = frame_of(json, source); frame.has_value() && !(is_token(frame->start, "[CLS]") && is_token(frame->end, "[SEP]"))) {
    refuse_part("post_processor", json.at("post_processor"), source, "[CLS] $A [SEP]");
  }
  return word_piece_tokenizer(tokens, source, {options.text.cleaning, lower_case, options.text.strip_sep_token});
}

std::shared_ptr<const Tokenizer> read_unigram(const Json& json, const std::string& source, const VocabularyOptions& options) {
  const auto frame = frame_of(json, source);
  const bool canonical = options.text.cleaning == Cleaning::canonicalize;
  const std::string model = sentence_piece_model(json, source, frame.has_value() ? frame->end : -1, canonical);
  return sentence_piece_tokenizer(model, source, {options.text.cleaning, frame.has_value() ? frame->start : -1, options.pad_token});
}

// Older files do not name it.
std::string kind_of_model(const Json& model) {
  if (const Json& type = part_of(model, "type"); !type.is_null()) return type.get<std::string>();
  return model.contains("merges") ? "BPE" : part_of(model, "vocab").is_array() ? "Unigram" : "WordPiece";
}

// `read` is given the JSON and the kind of its model.
template <class Read>
auto with_kind(const fs::path& path, Read read) {
  const Json json = parse_json_file(path);
  try {
    return read(json, kind_of_model(json.at("model")));
  } catch (const Json::exception& e) {
    throw FileError("not a tokenizer of Hugging Face: " + std::string(e.what()) + "; " + path.string() + "; fetch the file again");
  }
}

std::shared_ptr<const Tokenizer> read_tokenizer_json(const fs::path& path, const VocabularyOptions& options) {
  const std::string source = path.string();
  return with_kind(path, [&](const Json& json, const std::string& kind) {
    if (kind == "BPE") return read_bpe(json, source, options);
    if (kind == "WordPiece") return read_word_piece(json, source, options);
    if (kind == "Unigram") return read_unigram(json, source, options);
    throw ConfigError("a tokenizer of the kind '" + kind + "' is not supported; " + source + "; supported: BPE, WordPiece, Unigram");
  });
}

// vocab.json and merges.txt of a BPE of CLIP's kind; none of another.
TokenizerFiles bpe_files_of(const fs::path& path) {
  return with_kind(path, [&](const Json& json, const std::string& kind) -> TokenizerFiles {
    if (kind != "BPE" || part_of(json.at("model"), "end_of_word_suffix") != "</w>") return {};
    const BpeParts parts = bpe_parts(json, path.string());
    return {{"vocab.json", Json(parts.ids).dump()}, {"merges.txt", "#version: 0.2\n" + parts.merges}};
  });
}

std::shared_ptr<const Tokenizer> from_vocab_and_merges(const fs::path& folder, const VocabularyOptions& options) {
  const fs::path vocabulary = folder / "vocab.json", merges = folder / "merges.txt";
  const bool lower_case = options.text.cleaning == Cleaning::whitespace;  // transformers' CLIPTokenizer does, whatever is in the folder
  return bpe_tokenizer(ids_of(parse_json_file(vocabulary), vocabulary.string()), read_file(merges.string()), merges.string(), lower_case,
                       options);
}

// As tokenizer_config.json says; the name only where that does not.
bool is_uncased(const fs::path& folder, const std::string& name) {
  const bool by_name = name.find("-cased") == std::string::npos;
  const fs::path config = folder / "tokenizer_config.json";
  if (!is_file(config)) return by_name;
  const Json json = parse_json_file(config);
  const auto found = json.find("do_lower_case");
  const bool lower_case = found != json.end() && found->is_boolean() ? found->get<bool>() : by_name;
  for (const auto& [key, expected] : {std::pair{"strip_accents", lower_case}, std::pair{"tokenize_chinese_chars", true}}) {
    const auto given = json.find(key);
    if (given == json.end() || given->is_null() || *given == expected) continue;
    refuse_part(key, *given, config.string(), expected ? "true" : "false");
  }
  return lower_case;
}

std::shared_ptr<const Tokenizer> from_vocab_txt(const fs::path& folder, const std::string& name, const TokenizerOptions& options) {
  const fs::path path = folder / "vocab.txt";
  return word_piece_tokenizer(lines_of(path), path.string(), {options.cleaning, is_uncased(folder, name), options.strip_sep_token});
}

// What fills captions up, as Hugging Face's files say; empty where they do not.
std::string pad_token_in(const fs::path& folder) {
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    if (!is_file(folder / name)) continue;
    const Json json = parse_json_file(folder / name);
    const auto found = json.find("pad_token");
    if (found == json.end()) continue;
    const Json token = found->is_object() ? found->value("content", Json()) : *found;
    if (token.is_string()) return token.get<std::string>();
  }
  return {};
}

// transformers since 5 writes no vocab.json. open_clip does not look at the tokenizer.json of a CLIP.
bool has_only_tokenizer_json(const fs::path& folder) {
  return is_file(folder / "tokenizer.json") && is_file(folder / "config.json") && !is_file(folder / "open_clip_config.json") &&
         !(is_file(folder / "vocab.json") && is_file(folder / "merges.txt"));
}

}  // namespace

std::vector<std::string> tokenizer_files_in(const std::string& folder) {
  std::vector<std::string> out;
  for (const char* name : {"vocab.json", "merges.txt", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           kSentencePieceNames[0], kSentencePieceNames[1], kSentencePieceNames[2]}) {
    if (!folder.empty() && is_file(fs::path(folder) / name)) out.emplace_back(name);
  }
  return out;
}

std::string tokenizer_folder(const std::string& model) {
  if (is_folder(model)) return model;
  if (!is_file(model)) return {};
  const fs::path parent = fs::path(model).parent_path();
  return parent.empty() ? "." : parent.string();
}

TokenizerFiles read_tokenizer_files(const std::string& model) {
  const fs::path from = tokenizer_folder(model);
  TokenizerFiles files;
  // Beside another configuration tokenizer.json would not be looked at.
  if (!from.empty() && has_only_tokenizer_json(from)) files = bpe_files_of(from / "tokenizer.json");
  for (const std::string& name : tokenizer_files_in(from.string())) files.emplace_back(name, read_file((from / name).string()));
  return files;
}

void write_tokenizer_files(const TokenizerFiles& files, const std::string& to) {
  for (const auto& [name, bytes] : files) atomic_write((fs::path(to) / name).string(), bytes);
}

TokenizerOptions tokenizer_options(const TokenizerChoice& choice) {
  // open_clip's defaults: `lower` for its own tokenizer, `whitespace` for Hugging Face's.
  TokenizerOptions options{choice.hf_tokenizer_name.empty() ? Cleaning::ftfy : Cleaning::whitespace};
  if (choice.tokenizer_kwargs.empty()) return options;
  try {
    const Json kwargs = Json::parse(choice.tokenizer_kwargs);
    for (const auto& [key, value] : kwargs.items()) {
      if (key == "clean") {
        options.cleaning = parse_cleaning(value.get<std::string>());
      } else if (key == "strip_sep_token") {
        options.strip_sep_token = value.get<bool>();
      } else {
        throw ConfigError("tokenizer option '" + key + "' is not supported; tokenizer_kwargs; supported: clean, strip_sep_token");
      }
    }
  } catch (const Json::exception& e) {
    throw ConfigError("tokenizer options are not understood: " + std::string(e.what()) + "; tokenizer_kwargs; give a JSON object");
  }
  return options;
}

std::shared_ptr<const Tokenizer> find_tokenizer(const std::string& folder, const TokenizerChoice& choice) {
  VocabularyOptions options{tokenizer_options(choice), {}, 0};
  const fs::path path = folder;
  const bool any = !folder.empty();
  const bool has_merges = any && is_file(path / "vocab.json") && is_file(path / "merges.txt");
  if (choice.hf_tokenizer_name.empty()) {
    if (has_merges) return from_vocab_and_merges(path, options);
    if (any && has_only_tokenizer_json(path)) return read_tokenizer_json(path / "tokenizer.json", options);
    ClipTokenizerOptions built_in;
    built_in.cleaning = options.text.cleaning;
    built_in.vocab_size = std::min(built_in.vocab_size, choice.vocab_size);  // a larger embedding has rows that no token asks for
    return clip_tokenizer(built_in);
  }
  if (any) options.pad_token = pad_token_in(path);
  options.bpe_pad = -1;
  if (any && sentence_piece_available()) {
    for (const char* name : kSentencePieceNames) {
      if (is_file(path / name)) {
        return sentence_piece_tokenizer(read_file((path / name).string()), (path / name).string(),
                                        {options.text.cleaning, -1, options.pad_token});
      }
    }
  }
  if (any && is_file(path / "tokenizer.json")) return read_tokenizer_json(path / "tokenizer.json", options);
  if (any && is_file(path / "vocab.txt")) return from_vocab_txt(path, choice.hf_tokenizer_name, options.text);
  if (has_merges) return from_vocab_and_merges(path, options);
  throw ConfigError("the model's tokenizer '" + choice.hf_tokenizer_name + "' is not built in and " +
                    (any ? folder + " does not hold it" : "no folder was given that holds it") +
                    "; --model; put its tokenizer.json, spiece.model or vocab.txt beside the configuration");
}

}  // namespace twinlens
