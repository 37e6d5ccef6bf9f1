#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <queue>
#include <set>
#include <sstream>

#include "clip/src/text/bpe.h"
#include "clip/src/text/words.h"

#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Pair = std::pair<std::int32_t, std::int32_t>;

struct Word {
  std::vector<std::int32_t> symbols;
  std::int64_t count;
};

struct PairHash {
  std::size_t operator()(const Pair& p) const {
    return std::hash<std::uint64_t>()(static_cast<std::uint64_t>(static_cast<std::uint32_t>(p.first)) << 32 |
                                      static_cast<std::uint32_t>(p.second));
  }
};

struct Candidate {
  std::int64_t count;
  Pair pair;
  // The largest is merged first.
  bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : pair > other.pair; }
};

class Merger {
 public:
  explicit Merger(std::vector<Word> words) : words_(std::move(words)) {
    for (std::size_t w = 0; w < words_.size(); ++w) count(w, 1);
    for (const auto& [pair, n] : counts_) queue_.push({n, pair});
  }

  // Takes the most frequent pair off the queue; false when none is left.
  bool next(Pair& pair) {
    while (!queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      const std::int64_t now = counts_[best.pair];
      if (now <= 0) continue;
      if (now != best.count) {  // counts have changed since it was queued
        if (now < best.count) queue_.push({now, best.pair});
        continue;
      }
      pair = best.pair;
      return true;
    }
    return false;
  }

  // Makes the pair one symbol in every word.
  void apply(const Pair& pair, std::int32_t symbol) {
    const std::vector<std::size_t> places = std::move(places_[pair]);
    places_.erase(pair);
    std::vector<Pair> fresh;
    for (const std::size_t w : places) {
      std::vector<std::int32_t>& s = words_[w].symbols;
      bool here = false;
      for (std::size_t i = 0; i + 1 < s.size() && !here; ++i) here = s[i] == pair.first && s[i + 1] == pair.second;
      if (!here) continue;  // listed twice, or merged into something else since
      count(w, -1);
      std::size_t out = 0;
      for (std::size_t i = 0; i < s.size(); ++out) {
        const bool both = i + 1 < s.size() && s[i] == pair.first && s[i + 1] == pair.second;
        s[out] = both ? symbol : s[i];
        i += both ? 2 : 1;
      }
      s.resize(out);
      count(w, 1);
      for (std::size_t i = 0; i + 1 < out; ++i) {
        if (s[i] == symbol || s[i + 1] == symbol) fresh.emplace_back(s[i], s[i + 1]);
      }
    }
    for (const Pair& p : fresh) queue_.push({counts_[p], p});
    counts_.erase(pair);
  }

 private:
  void count(std::size_t w, std::int64_t sign) {
    const Word& word = words_[w];
    for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const Pair pair{word.symbols[i], word.symbols[i + 1]};
      counts_[pair] += sign * word.count;
      if (sign > 0) places_[pair].push_back(w);
    }
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, std::int64_t, PairHash> counts_;
  std::unordered_map<Pair, std::vector<std::size_t>, PairHash> places_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

void BpeTrainer::add(std::string_view text) {
  const std::string clean = clean_text(text, cleaning_);
  const std::vector<std::string_view> no_specials;
  WordScanner scanner(clean, no_specials);
  for (std::string_view word; scanner.next(word);) ++words_[std::string(word)];
}

std::vector<std::pair<std::string, std::string>> BpeTrainer::train(std::int64_t vocab_size) const {
  if (vocab_size < 514) {
    throw UsageError("vocab_size " + std::to_string(vocab_size) +
                     " is not possible; tokenize --train; use at least 514 (bytes, start, end)");
  }
  const BytePairs bytes("", 0, "bytes");
  std::vector<Word> words;
  for (const auto& [word, count] : words_) words.push_back({bytes.merge_word(word), count});
  Merger merger(std::move(words));
  std::vector<std::string> spellings = bytes.spellings();
  std::unordered_map<std::string, std::int32_t> symbols;
  for (std::size_t id = 0; id < spellings.size(); ++id) symbols.emplace(spellings[id], static_cast<std::int32_t>(id));
  std::vector<std::pair<std::string, std::string>> merges;
  Pair pair;
  while (static_cast<std::int64_t>(spellings.size()) + 2 < vocab_size && merger.next(pair)) {
    const std::string &left = spellings[static_cast<std::size_t>(pair.first)], &right = spellings[static_cast<std::size_t>(pair.second)];
    merges.emplace_back(left, right);
    // "a bc" and "ab c" are one token.
    const auto [it, is_new] = symbols.try_emplace(left + right, static_cast<std::int32_t>(spellings.size()));
    if (is_new) spellings.push_back(it->first);
    merger.apply(pair, it->second);
  }
  return merges;
}

namespace {

struct BpeFiles {
  std::string vocabulary, merges;  // vocab.json, merges.txt
  std::int64_t tokens = 0;
};

BpeFiles bpe_files(const std::vector<std::pair<std::string, std::string>>& merges) {
  std::vector<std::string> spellings = BytePairs("", 0, "bytes").spellings();
  std::set<std::string> known;
  std::string lines = "#version: 0.2\n";
  for (const auto& [left, right] : merges) {
    if (known.insert(left + right).second) spellings.push_back(left + right);
    lines += left + " " + right + "\n";
  }
  spellings.emplace_back("<|startoftext|>");
  spellings.emplace_back("<|endoftext|>");
  std::string vocabulary = "{";
  for (std::size_t id = 0; id < spellings.size(); ++id) {
    if (id != 0) vocabulary += ',';
    vocabulary += nlohmann::json(spellings[id]).dump() + ":" + std::to_string(id);
  }
  return {vocabulary + "}\n", lines, static_cast<std::int64_t>(spellings.size())};
}

}  // namespace

std::int64_t write_bpe(const std::string& folder, const std::vector<std::pair<std::string, std::string>>& merges) {
  make_folder(folder);
  const BpeFiles files = bpe_files(merges);
  const std::filesystem::path path = folder;
  atomic_write((path / "vocab.json").string(), files.vocabulary);
  atomic_write((path / "merges.txt").string(), files.merges);
  return files.tokens;
}

TokenizerFiles clip_tokenizer_files(std::int64_t vocab_size, std::int64_t context_length) {
  if (vocab_size < kLeastTokens) return {};
  std::vector<std::pair<std::string, std::string>> merges;
  const std::int64_t count = std::min(vocab_size, kMostTokens) - kLeastTokens;
  std::istringstream lines(built_in_merges(count));
  for (std::string left, right; std::ssize(merges) < count && lines >> left >> right;) merges.emplace_back(left, right);
  BpeFiles files = bpe_files(merges);
  const char *start = "<|startoftext|>", *end = "<|endoftext|>";
  const nlohmann::ordered_json special{{"bos_token", start}, {"eos_token", end}, {"unk_token", end}, {"pad_token", end}};
  nlohmann::ordered_json config{{"tokenizer_class", "CLIPTokenizer"}, {"model_max_length", context_length}, {"do_lower_case", true}};
  config.update(special);
  return {{"vocab.json", std::move(files.vocabulary)},
          {"merges.txt", std::move(files.merges)},
          {"tokenizer_config.json", config.dump(2) + "\n"},
          {"special_tokens_map.json", special.dump(2) + "\n"}};
}

}  // namespace twinlens
