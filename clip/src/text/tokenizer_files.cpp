#include "twinlens/clip/tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "clip/src/model_path.h"
#include "clip/src/text/unigram_model.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSentencePieceNames[] = {"spiece.model", "sentencepiece.model", "tokenizer.model"};

struct Options {
  Cleaning cleaning;
  bool strip_sep_token = false;
};

Options options_of(const TokenizerChoice& choice) {
  // open_clip's defaults: `lower` for its own tokenizer, `whitespace` for Hugging Face's.
  Options options{choice.hf_tokenizer_name.empty() ? Cleaning::ftfy : Cleaning::whitespace};
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

Json parse_file(const fs::path& path) {
  try {
    return Json::parse(read_file(path.string()));
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

std::int32_t id_of(const std::string& token, const Json& id, const std::string& source) {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;
  if (id.is_number_integer() && id >= 0 && id < kMost) return id.get<std::int32_t>();
  throw FileError("token '" + token + "' has the id " + id.dump() + "; " + source + "; ids are whole numbers from 0 on, below " +
                  std::to_string(kMost));
}

std::unordered_map<std::string, std::int32_t> ids_of(const Json& vocabulary, const std::string& source) {
  std::unordered_map<std::string, std::int32_t> ids;
  for (const auto& [token, id] : vocabulary.items()) ids.emplace(token, id_of(token, id, source));
  return ids;
}

ClipTokenizerOptions clip_options(const Options& options) {
  ClipTokenizerOptions out;
  out.cleaning = options.cleaning;
  return out;
}

// Whether the normalizer of a tokenizer.json lower-cases, by itself or as a part of it.
bool lower_cases(const Json& normalizer) {
  if (!normalizer.is_object()) return false;
  if (normalizer.value("type", std::string()) == "Lowercase") return true;
  const Json parts = normalizer.value("normalizers", Json::array());
  return std::any_of(parts.begin(), parts.end(), lower_cases);
}

// A byte-level BPE whose tokens end words by "</w>".
std::shared_ptr<const Tokenizer> from_json_bpe(const Json& json, const std::string& source, const Options& options) {
  const Json& model = json.at("model");
  if (model.value("end_of_word_suffix", Json()) != "</w>") {
    throw ConfigError("the BPE of this tokenizer does not end words by </w>, as CLIP's does; " + source +
                      "; only CLIP's kind is supported");
  }
  auto ids = ids_of(model.at("vocab"), source);
  for (const Json& token : json.value("added_tokens", Json::array())) {
    const auto content = token.at("content").get<std::string>();
    ids.emplace(content, id_of(content, token.at("id"), source));
  }
  std::string merges;
  for (const Json& merge : model.at("merges")) {
    merges += merge.is_array() ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>() : merge.get<std::string>();
    merges += '\n';
  }
  ClipTokenizerOptions clip = clip_options(options);
  clip.lower_case = lower_cases(json.value("normalizer", Json()));
  return clip_tokenizer(ids, merges, source, clip);
}

std::shared_ptr<const Tokenizer> from_json_word_piece(const Json& json, const std::string& source, const Options& options) {
  std::vector<std::string> tokens;
  for (const auto& [token, id] : json.at("model").at("vocab").items()) {
    const auto at = static_cast<std::size_t>(id_of(token, id, source));
    if (tokens.size() <= at) tokens.resize(at + 1);
    tokens[at] = token;
  }
  const Json normalizer = json.value("normalizer", Json::object());
  return word_piece_tokenizer(tokens, source,
                              {options.cleaning, normalizer.is_object() && normalizer.value("lowercase", true), options.strip_sep_token});
}

std::shared_ptr<const Tokenizer> from_tokenizer_json(const fs::path& path, const Options& options) {
  const Json json = parse_file(path);
  const std::string source = path.string();
  try {
    const auto type = json.at("model").value("type", std::string("BPE"));
    if (type == "BPE") return from_json_bpe(json, source, options);
    if (type == "WordPiece") return from_json_word_piece(json, source, options);
    if (type == "Unigram") return sentence_piece_tokenizer(sentence_piece_model(json, source), source, {options.cleaning});
    throw ConfigError("a tokenizer of the kind '" + type + "' is not supported; " + source + "; supported: BPE, WordPiece, Unigram");
  } catch (const Json::exception& e) {
    throw FileError("not a tokenizer of Hugging Face: " + std::string(e.what()) + "; " + source + "; fetch the file again");
  }
}

std::shared_ptr<const Tokenizer> from_vocab_and_merges(const fs::path& folder, const Options& options) {
  const fs::path vocabulary = folder / "vocab.json";
  ClipTokenizerOptions clip = clip_options(options);
  clip.lower_case = clip.cleaning == Cleaning::whitespace;  // transformers' CLIPTokenizer does, whatever is in the folder
  try {
    return clip_tokenizer(ids_of(parse_file(vocabulary), vocabulary.string()), read_file((folder / "merges.txt").string()),
                          vocabulary.string(), clip);
  } catch (const Json::exception& e) {
    throw FileError("not a vocabulary: " + std::string(e.what()) + "; " + vocabulary.string() + "; use an object of tokens and ids");
  }
}

std::shared_ptr<const Tokenizer> from_vocab_txt(const fs::path& path, const TokenizerChoice& choice, const Options& options) {
  const bool cased = choice.hf_tokenizer_name.find("-cased") != std::string::npos;
  return word_piece_tokenizer(lines_of(path), path.string(), {options.cleaning, !cased, options.strip_sep_token});
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
  for (const std::string& name : tokenizer_files_in(from.string())) files.emplace_back(name, read_file((from / name).string()));
  return files;
}

void write_tokenizer_files(const TokenizerFiles& files, const std::string& to) {
  for (const auto& [name, bytes] : files) atomic_write((fs::path(to) / name).string(), bytes);
}

std::shared_ptr<const Tokenizer> find_tokenizer(const std::string& folder, const TokenizerChoice& choice) {
  const Options options = options_of(choice);
  const fs::path path = folder;
  const bool any = !folder.empty();
  if (choice.hf_tokenizer_name.empty()) {
    if (any && is_file(path / "vocab.json") && is_file(path / "merges.txt")) return from_vocab_and_merges(path, options);
    ClipTokenizerOptions built_in = clip_options(options);
    built_in.vocab_size = std::min(built_in.vocab_size, choice.vocab_size);  // a larger embedding has rows that no token asks for
    return clip_tokenizer(built_in);
  }
  if (any && sentence_piece_available()) {
    for (const char* name : kSentencePieceNames) {
      if (is_file(path / name))
        return sentence_piece_tokenizer(read_file((path / name).string()), (path / name).string(), {options.cleaning});
    }
  }
  if (any && is_file(path / "vocab.txt")) return from_vocab_txt(path / "vocab.txt", choice, options);
  if (any && is_file(path / "tokenizer.json")) return from_tokenizer_json(path / "tokenizer.json", options);
  if (any && is_file(path / "vocab.json") && is_file(path / "merges.txt")) return from_vocab_and_merges(path, options);
  throw ConfigError("the model's tokenizer '" + choice.hf_tokenizer_name + "' is not built in and " +
                    (any ? folder + " does not hold it" : "no folder was given that holds it") +
                    "; --model; put its tokenizer.json, spiece.model or vocab.txt beside the configuration");
}

}  // namespace twinlens
