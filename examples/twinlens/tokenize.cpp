#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <iostream>
#include <nlohmann/json.hpp>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/text_encoding.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

struct TokenizeFlags {
  std::string model, cleaning, train, output;
  int context_length = 77;
  std::int64_t vocab_size = 49408;
  bool json = false;
};

bool is_model(const std::string& folder) {
  std::error_code ignored;
  return std::filesystem::exists(std::filesystem::path(folder) / "open_clip_config.json", ignored) ||
         std::filesystem::exists(std::filesystem::path(folder) / "config.json", ignored);
}

std::shared_ptr<const Tokenizer> tokenizer_for(const TokenizeFlags& flags, int& context, bool context_given) {
  if (flags.model.empty()) {
    ClipTokenizerOptions options;
    if (!flags.cleaning.empty()) options.cleaning = parse_cleaning(flags.cleaning);
    return clip_tokenizer(options);
  }
  // A folder that holds a vocabulary and no model will do.
  const bool no_model = !tokenizer_files_in(flags.model).empty() && !is_model(flags.model);
  ModelConfig config;
  if (!no_model) config = find_model_config(flags.model);
  // Without a vocabulary of CLIP's kind, whatever is there.
  std::error_code ignored;
  if (no_model && !std::filesystem::exists(std::filesystem::path(flags.model) / "vocab.json", ignored))
    config.text.hf_tokenizer_name = "of the folder";  // not its path, which says nothing of the vocabulary
  if (!context_given && !no_model) context = config.text.context_length;
  if (!flags.cleaning.empty()) {
    nlohmann::json kwargs =
        config.text.tokenizer_kwargs.empty() ? nlohmann::json::object() : nlohmann::json::parse(config.text.tokenizer_kwargs);
    kwargs["clean"] = flags.cleaning;
    config.text.tokenizer_kwargs = kwargs.dump();
  }
  if (no_model) return find_tokenizer(flags.model, {config.text.hf_tokenizer_name, config.text.tokenizer_kwargs, config.text.vocab_size});
  return tokenizer_of(config, flags.model);
}

void append(std::string& out, const std::vector<std::int32_t>& ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i != 0) out += ',';
    const fmt::format_int digits(ids[i]);
    out.append(digits.data(), digits.size());
  }
  out += ']';
}

int tokenize(const TokenizeFlags& flags, bool context_given) {
  constexpr std::size_t kBlock = 1 << 16;
  int context = flags.context_length;
  const auto tokenizer = tokenizer_for(flags, context, context_given);
  std::ios::sync_with_stdio(false);
  std::string line, out = flags.json ? "[" : "";
  bool first = true;
  while (std::getline(std::cin, line)) {
    if (flags.json && !first) out += ',';
    first = false;
    append(out, tokenizer->tokenize(line, context).ids);
    if (!flags.json) out += '\n';
    if (out.size() < kBlock) continue;
    print_text(out);
    out.clear();
  }
  if (std::cin.bad())
    throw FileError(std::string("standard input cannot be read: ") + std::strerror(errno) + "; stdin; give it lines of text");
  if (flags.json) out += "]\n";
  print_text(out);
  return 0;
}

int train(const TokenizeFlags& flags) {
  if (!flags.model.empty()) return wrong_usage("--train makes a vocabulary and takes no --model", "tokenize");
  if (flags.output.empty()) return wrong_usage("--train needs --output, the folder for vocab.json and merges.txt", "tokenize");
  std::ifstream corpus = open_lines(flags.train);
  BpeTrainer trainer(flags.cleaning.empty() ? Cleaning::ftfy : parse_cleaning(flags.cleaning));
  std::int64_t number = 0;
  for (std::string line; next_list_line(corpus, flags.train, number, line);) trainer.add(line);
  if (trainer.distinct_words() == 0) throw ConfigError("the file has no words; --train " + flags.train + "; give captions, one a line");
  const auto merges = trainer.train(flags.vocab_size);
  const std::int64_t tokens = write_bpe(flags.output, merges);
  if (flags.json) {
    const nlohmann::ordered_json out{
        {"output", flags.output}, {"vocab_size", tokens}, {"merges", merges.size()}, {"distinct_words", trainer.distinct_words()}};
    print_json(out);
  } else {
    print("{} tokens, {} merges, of {} distinct words: {}\n", tokens, merges.size(), trainer.distinct_words(), flags.output);
  }
  return 0;
}

}  // namespace

Action add_tokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  app.add_option("--model", flags->model, "Takes tokenizer and context length from this model, or the vocabulary from this folder");
  CLI::Option* context = app.add_option("--context-length", flags->context_length, "Longer lines are cut, keeping the end-of-text token")
                             ->capture_default_str()
                             ->check(within(2, 1 << 20));
  app.add_option(
         "--cleaning", flags->cleaning,
         "none, ftfy (as open_clip), whitespace or canonicalize; default: the model's, which is ftfy for CLIP; without --model none, for "
         "--train ftfy")
      ->check(CLI::IsMember({"none", "ftfy", "lower", "whitespace", "canonicalize"}));
  app.add_option("--train", flags->train, "Trains a byte-pair vocabulary on the lines of this file instead");
  CLI::Option* size = app.add_option("--vocab-size", flags->vocab_size, "--train: 512 byte symbols, the merges, start and end");
  size->capture_default_str();
  app.add_option("--output", flags->output, "--train: folder for vocab.json and merges.txt");
  app.add_flag("--json", flags->json, "One array of arrays");
  app.footer(
      "Examples:\n  echo 'a photo of a cat' | twinlens tokenize\n"
      "  twinlens tokenize --train captions.txt --vocab-size 4096 --output vocabulary/\n"
      "  twinlens tokenize --model vocabulary/ < captions.txt");
  return [flags, context, size] {
    if (!flags->train.empty()) return train(*flags);
    if (!flags->output.empty()) return wrong_usage("--output goes with --train; ids go to stdout", "tokenize");
    if (size->count() > 0) return wrong_usage("--vocab-size goes with --train; --model names a vocabulary that is there", "tokenize");
    return tokenize(*flags, context->count() > 0);
  };
}

}  // namespace twinlens::program
