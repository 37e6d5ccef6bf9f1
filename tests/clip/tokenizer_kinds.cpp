// Tokenizers of model folders against Hugging Face's, and the trainer of vocabularies (tests/golden/make_tokenizer_kinds.py).

#include <catch2/catch.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "clip/src/embedded.h"
#include "clip/src/text/bpe.h"
#include "clip/src/text/words.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Ids = std::vector<std::int32_t>;
using Pair = std::pair<std::string, std::string>;

const std::string kData = std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/";

const nlohmann::json& golden() {
  static const auto json = nlohmann::json::parse(read_file(kData + "tokenizer_kinds.json"));
  return json;
}

// The files of one kind, some of them.
std::string some_of(const TemporaryFolder& folder, const std::string& kind, const std::vector<std::string>& names) {
  for (const std::string& name : names) write_text(folder / name, read_file(kData + "tokenizers/" + kind + "/" + name));
  return folder.path();
}

TEST_CASE("SentencePiece: the ids of SigLIP's tokenizer, from a .model and from a tokenizer.json", "[tokenizer]") {
  const TokenizerChoice choice{"timm/ViT-B-16-SigLIP", R"({"clean":"canonicalize"})", 0};
  if (!sentence_piece_available()) {
    const TemporaryFolder folder;
    CHECK_THROWS_WITH(find_tokenizer(some_of(folder, "sentencepiece", {"tokenizer.json"}), choice), Catch::Contains("libsentencepiece"));
    return;
  }
  const auto& expected = golden()["sentencepiece"];
  for (const char* name : {"spiece.model", "tokenizer.json"}) {
    const TemporaryFolder folder;
    const auto tokenizer = find_tokenizer(some_of(folder, "sentencepiece", {name}), choice);
    CHECK(tokenizer->vocab_size() == expected["vocab_size"].get<std::int64_t>());
    CHECK(tokenizer->start_id() == -1);
    CHECK(tokenizer->end_id() == 1);
    CHECK(tokenizer->pad_id() == 1);
    for (std::size_t i = 0; i < golden()["texts"].size(); ++i) {
      CAPTURE(name, i, golden()["texts"][i].dump());
      CHECK(tokenizer->tokenize(golden()["texts"][i].get<std::string>(), 16).ids == expected["ids"][i].get<Ids>());
    }
    CHECK(tokenizer->decode(tokenizer->encode("A grinning face!")) == "a grinning face");
  }
  CHECK_THROWS_WITH(sentence_piece_tokenizer("nonsense", "x.model"),
                    Catch::Contains("not a SentencePiece model") && Catch::Contains("x.model"));
}

TEST_CASE("WordPiece: the ids of BERT's tokenizer as CLIPA runs it", "[tokenizer]") {
  const auto& expected = golden()["wordpiece"];
  for (const char* name : {"vocab.txt", "tokenizer.json"}) {
    const TemporaryFolder folder;
    some_of(folder, "wordpiece", {name});
    const auto plain = find_tokenizer(folder.path(), {"bert-base-uncased", "", 0});
    const auto stripped = find_tokenizer(folder.path(), {"bert-base-uncased", R"({"strip_sep_token":true})", 0});
    for (std::size_t i = 0; i < golden()["texts"].size(); ++i) {
      CAPTURE(name, i, golden()["texts"][i].dump());
      const auto text = golden()["texts"][i].get<std::string>();
      CHECK(plain->tokenize(text, 32).ids == expected["ids"][i].get<Ids>());
      CHECK(stripped->tokenize(text, 32).ids == expected["stripped"][i].get<Ids>());
    }
    CHECK(plain->pad_id() == 0);
  }
  CHECK_THROWS_WITH(word_piece_tokenizer({"a", "b"}, "v.txt"), "the vocabulary has no [UNK]; v.txt; use BERT's vocab.txt");
}

TEST_CASE("CLIP's kind of BPE from vocab.json and merges.txt, and from tokenizer.json", "[tokenizer]") {
  const auto& expected = golden()["bpe"]["ids"];
  const TemporaryFolder folder;
  const auto from_files = find_tokenizer(some_of(folder, "bpe", {"vocab.json", "merges.txt"}), {});
  const TemporaryFolder other;
  const auto from_json = find_tokenizer(some_of(other, "bpe", {"tokenizer.json"}), {"somebody/clip", R"({"clean":"lower"})", 0});
  const auto by_normalizer = find_tokenizer(other.path(), {"somebody/clip", "", 0});  // which lower-cases where cleaning does not
  for (std::size_t i = 0; i < golden()["texts"].size(); ++i) {
    CAPTURE(i, golden()["texts"][i].dump());
    const auto text = golden()["texts"][i].get<std::string>();
    CHECK(from_files->encode(text) == expected[i].get<Ids>());
    CHECK(from_json->encode(text) == expected[i].get<Ids>());
    if (text.find("\xCE\xA3") == std::string::npos) CHECK(by_normalizer->encode(text) == expected[i].get<Ids>());  // (final sigma)
  }
  CHECK(from_files->vocab_size() == from_json->vocab_size());
}

TEST_CASE("a tokenizer that cannot be had is named", "[tokenizer]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(find_tokenizer("", {"timm/ViT-B-16-SigLIP", "", 32000}),
                    Catch::Contains("tokenizer 'timm/ViT-B-16-SigLIP' is not built in") && Catch::Contains("spiece.model"));
  CHECK_THROWS_WITH(find_tokenizer("", {"", R"({"clean":"wash"})", 49408}), Catch::Contains("unknown cleaning 'wash'"));
  CHECK_THROWS_WITH(find_tokenizer("", {"", R"({"speed":1})", 49408}), Catch::Contains("option 'speed' is not supported"));
  write_text(folder / "tokenizer.json", R"({"model":{"type":"BPE","vocab":{},"merges":[]}})");
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), {"roberta-base", "", 0}), Catch::Contains("does not end words by </w>"));
  write_text(folder / "tokenizer.json", "[1,");
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), {"roberta-base", "", 0}), Catch::Contains("not JSON"));
  write_text(folder / "tokenizer.json", R"({"model":{"type":"Unigram"}})");
  CHECK_THROWS_AS(find_tokenizer(folder.path(), {"x", "", 0}), FileError);
  for (const char* id : {"-1", "4000000000000000000", "1.9", "4294967301"}) {
    for (const char* type : {"WordPiece", "BPE"}) {
      INFO(type << " " << id);
      write_text(folder / "tokenizer.json",
                 std::string(R"({"model":{"type":")") + type +
                     R"(","end_of_word_suffix":"</w>","merges":[],"vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"odd":)" + id + "}}}");
      CHECK_THROWS_WITH(find_tokenizer(folder.path(), {"x", "", 0}),
                        Catch::Contains("token 'odd' has the id") && Catch::Contains("tokenizer.json"));
    }
  }
}

std::vector<std::string> corpus() {
  const std::string path = kData + "tokenizer_words.txt.gz";
  std::istringstream lines(gunzip(read_file(path), path));
  std::vector<std::string> out;
  for (std::string line; out.size() < 4000 && std::getline(lines, line);) {
    if (line.starts_with("n ")) out.push_back(line.substr(2));
  }
  return out;
}

// Counts of all pairs, anew at each step: the textbook's trainer.
class SlowTrainer {
 public:
  explicit SlowTrainer(const std::vector<std::string>& texts) : bytes_("", 0, "bytes"), spellings_(bytes_.spellings()) {
    std::map<std::string, std::int64_t> words;
    for (const std::string& text : texts) {
      const std::string clean = clean_text(text, Cleaning::none);
      WordScanner scanner(clean, none_);
      for (std::string_view word; scanner.next(word);) ++words[std::string(word)];
    }
    for (const auto& [word, count] : words) words_.emplace_back(bytes_.merge_word(word), count);
  }
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts() const {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> out;
    for (const auto& [ids, count] : words_) {
      for (std::size_t i = 0; i + 1 < ids.size(); ++i) out[{ids[i], ids[i + 1]}] += count;
    }
    return out;
  }
  Pair spelled(const std::pair<std::int32_t, std::int32_t>& pair) const {
    return {spellings_[static_cast<std::size_t>(pair.first)], spellings_[static_cast<std::size_t>(pair.second)]};
  }
  void merge(const std::pair<std::int32_t, std::int32_t>& pair) {
    const auto symbol = static_cast<std::int32_t>(spellings_.size());
    spellings_.push_back(spelled(pair).first + spelled(pair).second);
    for (auto& [ids, count] : words_) {
      Ids next;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const bool both = i + 1 < ids.size() && ids[i] == pair.first && ids[i + 1] == pair.second;
        next.push_back(both ? symbol : ids[i]);
        i += both ? 1 : 0;
      }
      ids = next;
    }
  }

 private:
  BytePairs bytes_;
  std::vector<std::string> spellings_;
  std::vector<std::string_view> none_;
  std::vector<std::pair<Ids, std::int64_t>> words_;
};

TEST_CASE("a vocabulary is trained as the textbook does and as Hugging Face's trainer does, up to ties", "[tokenizer]") {
  const std::vector<std::string> texts = corpus();
  BpeTrainer trainer(Cleaning::none);
  for (const std::string& text : texts) trainer.add(text);
  const std::vector<Pair> merges = trainer.train(512 + 150 + 2);
  REQUIRE(merges.size() == 150);
  std::istringstream theirs(read_file(kData + "tokenizers/bpe/merges.txt"));
  std::string line;
  std::getline(theirs, line);
  SlowTrainer slow(texts);
  bool same = true;
  std::size_t common = 0;
  for (const Pair& merge : merges) {
    const auto counts = slow.counts();
    std::pair<std::int32_t, std::int32_t> best;
    std::int64_t most = 0;
    for (const auto& [pair, count] : counts) {  // in order, so that the first of equal ones stays
      if (count > most) most = count, best = pair;
    }
    REQUIRE(merge == slow.spelled(best));
    std::getline(theirs, line);
    if (same && line != merge.first + " " + merge.second) {
      same = false;  // then theirs must be as frequent: numbers of the symbols that end words decide
      std::int64_t their_count = 0;
      for (const auto& [pair, count] : counts) {
        if (line == slow.spelled(pair).first + " " + slow.spelled(pair).second) their_count = count;
      }
      CHECK(their_count == most);
    }
    common += same ? 1 : 0;
    slow.merge(best);
  }
  CHECK(common >= 40);

  const TemporaryFolder folder;
  CHECK(write_bpe(folder / "made", merges) == 664);
  const auto tokenizer = find_tokenizer(folder / "made", {"", R"({"clean":"lower"})", 0});
  CHECK(tokenizer->vocab_size() == 664);
  CHECK(tokenizer->start_id() == 662);
  CHECK(tokenizer->decode(tokenizer->encode("Grinning face: Côte")) == "grinning face : côte ");
  CHECK_THROWS_WITH(trainer.train(513), Catch::Contains("vocab_size 513 is not possible"));
  // More than there is to merge: it stops.
  BpeTrainer small(Cleaning::none);
  small.add("ab ab");
  CHECK(small.train(1000) == std::vector<Pair>{{"a", "b</w>"}});
}

TEST_CASE("the built-in vocabulary as files of Hugging Face gives the same tokens", "[tokenizer]") {
  const TemporaryFolder folder;
  for (const std::int64_t vocab_size : {49408, 1000, 514}) {
    write_tokenizer_files(clip_tokenizer_files(vocab_size, 77), folder.path());
    ClipTokenizerOptions built_in;
    built_in.vocab_size = vocab_size;
    built_in.cleaning = Cleaning::ftfy;
    const auto from_files = find_tokenizer(folder.path(), {"", "", vocab_size}), own = clip_tokenizer(built_in);
    const auto hugging_face = find_tokenizer(folder.path(), {"somebody/clip", "", vocab_size});  // cleans without lower-casing, then does
    for (const char* text : {"a photo of a cat", "Hello WORLD  42!!", "na\xC3\xAFve caf\xC3\xA9", "it's 100% \xF0\x9F\x98\x80", ""}) {
      INFO(vocab_size << ": " << text);
      CHECK(from_files->tokenize(text, 77).ids == own->tokenize(text, 77).ids);
      CHECK(hugging_face->tokenize(text, 77).ids == own->tokenize(text, 77).ids);
    }
  }
  CHECK(tokenizer_files_in(folder.path()) ==
        std::vector<std::string>{"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"});
  CHECK(clip_tokenizer_files(513, 77).empty());
}

}  // namespace
}  // namespace twinlens::test
