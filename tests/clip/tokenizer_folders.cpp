// Tokenizers of model folders: damaged files, what of a tokenizer.json is read and what is refused, which of several files counts.

#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "clip/src/text/unigram_model.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;
using Json = nlohmann::json;

const TokenizerChoice kSomebodys{"somebody/model", "", 0};

std::string golden_file(const std::string& kind, const std::string& name) {
  return read_file(std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/tokenizers/" + kind + "/" + name);
}

// The tokenizer of a folder with this tokenizer.json alone.
std::shared_ptr<const Tokenizer> of_json(const Json& json) {
  const TemporaryFolder folder;
  write_text(folder / "tokenizer.json", json.dump());
  return find_tokenizer(folder.path(), kSomebodys);
}

// The kind's tokenizer.json with one part of it changed.
std::shared_ptr<const Tokenizer> of_changed(const std::string& kind, const std::string& pointer, const Json& value) {
  Json json = Json::parse(golden_file(kind, "tokenizer.json"));
  json[Json::json_pointer(pointer)] = value;
  return of_json(json);
}

Json template_of(const std::vector<std::string>& parts) {
  Json single = Json::array(), tokens = Json::object();
  for (const std::string& part : parts) {
    if (part == "$A") {
      single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    } else {
      single.push_back({{"SpecialToken", {{"id", part}, {"type_id", 0}}}});
      tokens[part] = {{"id", part}, {"ids", {part == "<pad>" ? 0 : part == "</s>" ? 1 : part == "[CLS]" ? 2 : 3}}, {"tokens", {part}}};
    }
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", Json::array()}, {"special_tokens", tokens}};
}

// A SentencePiece model that has nothing but a map: a trie of these units and the replacements behind it.
std::string model_of_map(std::vector<std::uint32_t> units, const std::string& texts, std::uint32_t trie_bytes) {
  std::string map;
  units.insert(units.begin(), trie_bytes);
  for (const std::uint32_t unit : units) {
    for (unsigned shift = 0; shift < 32; shift += 8) map += static_cast<char>(unit >> shift & 0xFFU);
  }
  map += texts;
  const auto field = [](char tag, const std::string& bytes) {
    return std::string{tag, static_cast<char>((bytes.size() & 0x7FU) | 0x80U), static_cast<char>(bytes.size() >> 7U)} + bytes;
  };
  return field('\x1A', field('\x12', map));
}

TEST_CASE("SentencePiece: replacements of characters that lead out of their table are refused", "[tokenizer]") {
  constexpr std::uint32_t kLeaf = 0x80000000U, kHasLeaf = 0x100U;
  std::vector<std::uint32_t> units(256, 0);
  units[0] = 1U << 10U;                         // children at 1 ^ byte
  units[1 ^ 'a'] = 3U << 10U | kHasLeaf | 'a';  // its value at itself ^ 3
  units[1 ^ 'a' ^ 3] = kLeaf | 2U;
  const std::string texts("x\0y\0", 4);
  const auto check = [&] { check_charsmaps(model_of_map(units, texts, 1024), "m.model"); };
  CHECK_NOTHROW(check());
  CHECK_NOTHROW(check_charsmaps("", "m.model"));
  units[1 ^ 'a' ^ 3] = kLeaf | 4U;
  CHECK_THROWS_WITH(check(), Contains("precompiled_charsmap") && Contains("a replacement that is not there; m.model; fetch"));
  units[1 ^ 'a' ^ 3] = kLeaf | 2U;
  units[7] = 1U << 20U;
  CHECK_THROWS_WITH(check(), Contains("unit 7 of its trie points outside of it; m.model"));
  units[7] = 0;
  for (const std::uint32_t bytes : {0U, 1023U, 1028U, 0xFFFFFFFCU}) {
    CHECK_THROWS_WITH(check_charsmaps(model_of_map(units, texts, bytes), "m.model"), Contains("does not fit into 1032"));
  }
  CHECK_THROWS_WITH(check_charsmaps(model_of_map(units, "x", 1024), "m.model"), Contains("its last replacement has no end"));
  CHECK_THROWS_WITH(check_charsmaps(model_of_map(units, texts, 1024).substr(0, 900), "m.model"), Contains("not a SentencePiece model"));

  if (!sentence_piece_available()) return;
  const TemporaryFolder folder;
  std::string model = golden_file("sentencepiece", "spiece.model");
  const std::size_t at = model.find(std::string("\0\4\0\0\0\x0C\3\0", 8));  // its trie has 1024 bytes
  REQUIRE(at != std::string::npos);
  model[at + 6] = '\xFF';
  write_text(folder / "spiece.model", model);
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), kSomebodys),
                    Contains("unit 0 of its trie points outside of it") && Contains("spiece.model"));
  std::filesystem::remove(folder / "spiece.model");
  std::string json = golden_file("sentencepiece", "tokenizer.json");
  json.replace(json.find("AAQAAAAMAwDC"), 12, "AAQAAAAM/wDC");
  write_text(folder / "tokenizer.json", json);
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), kSomebodys),
                    Contains("unit 0 of its trie points outside of it") && Contains("tokenizer.json"));
}

TEST_CASE("a tokenizer.json nested without end is refused, and what is wrong is not shown whole", "[tokenizer]") {
  const TemporaryFolder folder;
  std::string open, close;
  for (int i = 0; i < 200'000; ++i) open += R"({"type":"Sequence","normalizers":[)", close += "]}";
  for (const char* type : {"BPE", "WordPiece", "Unigram"}) {
    write_text(folder / "tokenizer.json", R"({"normalizer":)" + open + close + R"(,"model":{"type":")" + type + R"("}})");
    CHECK_THROWS_WITH(find_tokenizer(folder.path(), kSomebodys), Contains("nested deeper than 64 levels") && Contains("tokenizer.json"));
  }
  try {
    of_changed("wordpiece", "/model/vocab/odd", Json(std::vector<int>(5000, 7)));
    FAIL("an id that is a list");
  } catch (const FileError& e) {
    CHECK(std::string(e.what()).size() < 400);
  }
}

TEST_CASE("a CLIP of Hugging Face that has only a tokenizer.json is read by it, and hands its vocabulary on", "[tokenizer]") {
  const TemporaryFolder folder, next;
  write_text(folder / "tokenizer.json", golden_file("bpe", "tokenizer.json"));
  write_text(folder / "config.json", "{}");
  const TemporaryFolder files;
  for (const char* name : {"vocab.json", "merges.txt"}) write_text(files / name, golden_file("bpe", name));
  const auto expected = find_tokenizer(files.path(), {})->tokenize("Grinning face, don't", 77).ids;
  CHECK(find_tokenizer(folder.path(), {})->tokenize("Grinning face, don't", 77).ids == expected);
  write_tokenizer_files(read_tokenizer_files(folder.path()), next.path());
  write_text(next / "open_clip_config.json", "{}");
  CHECK(find_tokenizer(next.path(), {})->tokenize("Grinning face, don't", 77).ids == expected);
  write_text(folder / "open_clip_config.json", "{}");  // open_clip does not look at it
  CHECK(find_tokenizer(folder.path(), {})->tokenize("Grinning face, don't", 77).ids ==
        clip_tokenizer()->tokenize("grinning face, don't", 77).ids);
  CHECK(read_tokenizer_files(folder.path()).size() == 1);
  // The current folder is not that of a built-in model.
  std::filesystem::remove(folder / "open_clip_config.json");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const TokenizerFiles built_in = read_tokenizer_files("ViT-B-32");
  std::filesystem::current_path(before);
  CHECK(built_in.empty());
  // A BPE of another kind is for whom it is for.
  Json gemma = Json::parse(golden_file("bpe", "tokenizer.json"));
  gemma["model"]["end_of_word_suffix"] = nullptr;
  write_text(folder / "tokenizer.json", gemma.dump());
  CHECK(read_tokenizer_files(folder.path()).size() == 1);
}

TEST_CASE("a tokenizer.json that does not name its model's kind is known by its parts", "[tokenizer]") {
  for (const char* kind : {"bpe", "wordpiece", "sentencepiece"}) {
    if (kind == std::string("sentencepiece") && !sentence_piece_available()) continue;
    Json json = Json::parse(golden_file(kind, "tokenizer.json"));
    const auto expected = of_json(json)->encode("a grinning face");
    REQUIRE(json["model"].erase("type") == 1);
    CHECK(of_json(json)->encode("a grinning face") == expected);
  }
}

TEST_CASE("a unigram tokenizer.json: start and end are those of its template", "[tokenizer]") {
  if (!sentence_piece_available()) return;
  const auto plain = of_changed("sentencepiece", "/post_processor", nullptr);
  const auto ended = of_changed("sentencepiece", "/post_processor", template_of({"$A", "</s>"}));
  const auto framed = of_changed("sentencepiece", "/post_processor", template_of({"<pad>", "$A", "</s>"}));
  const auto other_end = of_changed("sentencepiece", "/post_processor", template_of({"$A", "<pad>"}));
  const std::vector<std::int32_t> body = plain->encode("a grinning face");
  REQUIRE(body.size() > 2);
  std::vector<std::int32_t> ids = body;
  ids.push_back(1);
  CHECK(plain->tokenize("a grinning face", 77).ids == ids);
  CHECK(ended->tokenize("a grinning face", 77).ids == ids);
  ids.insert(ids.begin(), 0);
  CHECK(framed->tokenize("a grinning face", 77).ids == ids);
  CHECK(framed->tokenize("a grinning face", 3).ids == std::vector<std::int32_t>{0, body[0], 1});
  CHECK(framed->start_id() == 0);
  CHECK(other_end->end_id() == 0);
  CHECK(framed->pad_id() == 0);  // its own; SigLIP's, without a start, is the end
  CHECK(ended->pad_id() == 1);
  Json beyond = template_of({"$A", "</s>"});
  beyond["special_tokens"]["</s>"]["ids"] = {1 << 20};
  CHECK_THROWS_WITH(of_changed("sentencepiece", "/post_processor", beyond), Contains("the end of text has the id 1048576, outside"));
  for (const auto& parts : std::vector<std::vector<std::string>>{{"$A"}, {"<pad>", "$A"}, {"<pad>", "<pad>", "$A", "</s>"}, {"$A", "$A"}}) {
    CHECK_THROWS_WITH(of_changed("sentencepiece", "/post_processor", template_of(parts)),
                      Contains("post_processor.single is not supported") && Contains("supported: [start] $A end"));
  }
}

TEST_CASE("BERT is cased as its files say, and only where they do not, as its name does", "[tokenizer]") {
  const TemporaryFolder folder;
  write_text(folder / "vocab.txt", golden_file("wordpiece", "vocab.txt"));
  const TokenizerChoice cased{"bert-base-cased", "", 0}, uncased{"bert-base-uncased", "", 0};
  const auto small = find_tokenizer(folder.path(), uncased)->encode("GRINNING"),
             large = find_tokenizer(folder.path(), cased)->encode("GRINNING");
  REQUIRE(small != large);
  write_text(folder / "tokenizer_config.json", R"({"do_lower_case":false})");
  CHECK(find_tokenizer(folder.path(), uncased)->encode("GRINNING") == large);
  write_text(folder / "tokenizer_config.json", R"({"do_lower_case":true,"strip_accents":null})");
  CHECK(find_tokenizer(folder.path(), cased)->encode("GRINNING") == small);
  write_text(folder / "tokenizer_config.json", R"({"do_lower_case":true,"strip_accents":false})");
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), cased),
                    Contains("strip_accents is not supported: false") && Contains("tokenizer_config.json"));
  write_text(folder / "tokenizer_config.json", R"({"tokenize_chinese_chars":false})");
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), cased), Contains("tokenize_chinese_chars is not supported: false"));
  // tokenizer.json goes before both.
  Json json = Json::parse(golden_file("wordpiece", "tokenizer.json"));
  json["normalizer"]["lowercase"] = false;
  write_text(folder / "tokenizer.json", json.dump());
  CHECK(find_tokenizer(folder.path(), uncased)->encode("GRINNING") == large);
}

TEST_CASE("a damaged vocab.json or merges.txt is refused", "[tokenizer]") {
  const TemporaryFolder folder;
  const auto found = [&](const std::string& vocabulary, const std::string& merges) {
    write_text(folder / "vocab.json", vocabulary);
    write_text(folder / "merges.txt", merges);
    return find_tokenizer(folder.path(), {});
  };
  const std::string merges = golden_file("bpe", "merges.txt");
  for (const char* damaged : {"{}", "[1,2]", "5", "null"}) {
    CHECK_THROWS_WITH(found(damaged, merges), Contains(std::string("not a vocabulary: ") + damaged) && Contains("vocab.json"));
  }
  Json ids = Json::parse(golden_file("bpe", "vocab.json"));
  const std::string line = merges.substr(merges.find('\n') + 1, merges.find('\n', merges.find('\n') + 1) - merges.find('\n') - 1);
  std::string token = line;
  token.erase(token.find(' '), 1);
  REQUIRE(ids.erase(token) == 1);
  CHECK_THROWS_WITH(found(ids.dump(), merges),
                    Contains("merge 0 '" + line + "' makes '" + token + "', which has no id") && Contains("merges.txt"));
  // A byte without an id is unknown, as ever.
  const auto small = found(R"({"a":0,"a</w>":1,"<|startoftext|>":2,"<|endoftext|>":3})", "#version: 0.2\n");
  CHECK(small->encode("a b") == std::vector<std::int32_t>{1, 3});
}

TEST_CASE("what is not implemented of a tokenizer.json is refused by name", "[tokenizer]") {
  struct Change {
    const char *kind, *pointer;
    Json value;
    const char* named;
  };
  const Json added{{"id", 5}, {"content", "grinning"}, {"special", false}}, lower{{"type", "Lowercase"}},
      spaces{{"type", "WhitespaceSplit"}};
  const std::vector<Change> refused{
      {"wordpiece", "/normalizer", lower, "normalizer"},
      {"wordpiece", "/normalizer", nullptr, "normalizer"},
      {"wordpiece", "/normalizer/clean_text", false, "normalizer.clean_text"},
      {"wordpiece", "/normalizer/strip_accents", false, "normalizer.strip_accents"},
      {"wordpiece", "/normalizer/handle_chinese_chars", false, "normalizer.handle_chinese_chars"},
      {"wordpiece", "/pre_tokenizer", spaces, "pre_tokenizer"},
      {"wordpiece", "/model/max_input_chars_per_word", 5, "model.max_input_chars_per_word"},
      {"wordpiece", "/model/continuing_subword_prefix", "@@", "model.continuing_subword_prefix"},
      {"wordpiece", "/model/unk_token", "[MASK]", "model.unk_token"},
      {"wordpiece", "/added_tokens/-", added, "added_tokens"},
      {"wordpiece", "/post_processor", template_of({"[SEP]", "$A", "[CLS]"}), "post_processor"},
      {"bpe", "/normalizer", {{"type", "StripAccents"}}, "normalizer"},
      {"bpe", "/pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}, "pre_tokenizer"},
      {"bpe", "/pre_tokenizer", nullptr, "pre_tokenizer"},
      {"bpe", "/pre_tokenizer/pretokenizers/0/pattern/Regex", " ", "pre_tokenizer"},
      {"bpe", "/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "pre_tokenizer"},
      {"bpe", "/added_tokens/-", added, "added_tokens"},
      {"bpe", "/model/unk_token", "[UNK]", "model.unk_token"},
      {"bpe", "/model/ignore_merges", true, "model.ignore_merges"},
      {"bpe", "/model/byte_fallback", true, "model.byte_fallback"},
      {"bpe", "/model/dropout", 0.1, "model.dropout"},
      {"bpe", "/post_processor", {{"type", "RobertaProcessing"}, {"cls", {"a", 5}}, {"sep", {"<|endoftext|>", 1}}}, "post_processor"},
      {"sentencepiece", "/normalizer", lower, "normalizer"},
      {"sentencepiece", "/normalizer/normalizers/-", {{"type", "NFKC"}}, "normalizer"},
      {"sentencepiece", "/pre_tokenizer", spaces, "pre_tokenizer"},
      {"sentencepiece", "/pre_tokenizer/replacement", "_", "pre_tokenizer"},
      {"sentencepiece", "/added_tokens/-", added, "added_tokens"},
  };
  for (const Change& change : refused) {
    INFO(change.kind << change.pointer << " " << change.value.dump());
    CHECK_THROWS_AS(of_changed(change.kind, change.pointer, change.value), ConfigError);
    CHECK_THROWS_WITH(
        of_changed(change.kind, change.pointer, change.value),
        Contains(std::string("the tokenizer's ") + change.named + " is not supported: ") && Contains("tokenizer.json; supported: "));
  }
  // What transformers writes else is read.
  const Json bert = Json::parse(golden_file("wordpiece", "tokenizer.json"))["normalizer"];
  CHECK_NOTHROW(of_changed("wordpiece", "/normalizer", {{"type", "Sequence"}, {"normalizers", {bert}}}));
  CHECK_NOTHROW(of_changed("wordpiece", "/post_processor", template_of({"[CLS]", "$A", "[SEP]"})));
  CHECK_NOTHROW(of_changed("bpe", "/post_processor",
                           {{"type", "RobertaProcessing"}, {"cls", {"<|startoftext|>", 0}}, {"sep", {"<|endoftext|>", 1}}}));
  CHECK_NOTHROW(
      of_changed("bpe", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)"));
  if (!sentence_piece_available()) return;
  const Json metaspace = Json::parse(golden_file("sentencepiece", "tokenizer.json"))["pre_tokenizer"];
  CHECK_NOTHROW(of_changed("sentencepiece", "/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {spaces, metaspace}}}));
  // What canonicalize does, a normalizer may do again.
  const TemporaryFolder folder;
  Json again = Json::parse(golden_file("sentencepiece", "tokenizer.json"));
  again["normalizer"] = {{"type", "Sequence"},
                         {"normalizers",
                          {lower,
                           {{"type", "Replace"}, {"pattern", {{"Regex", "[!-/]"}}}, {"content", ""}},
                           {{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", " "}},
                           Json::parse(golden_file("sentencepiece", "tokenizer.json"))["normalizer"]}}};
  write_text(folder / "tokenizer.json", again.dump());
  CHECK_THROWS_WITH(find_tokenizer(folder.path(), kSomebodys), Contains("normalizer is not supported"));
  const TokenizerChoice siglip{"somebody/siglip", R"({"clean":"canonicalize"})", 0};
  const auto repeated = find_tokenizer(folder.path(), siglip);
  write_text(folder / "tokenizer.json", golden_file("sentencepiece", "tokenizer.json"));
  CHECK(repeated->encode("A grinning  Face!") == find_tokenizer(folder.path(), siglip)->encode("A grinning  Face!"));
}

TEST_CASE("captions are filled up with the pad_token that the files name, and a tower that reads another is refused", "[tokenizer]") {
  const TemporaryFolder folder;
  ModelConfig config = *builtin_model_config("ViT-B-32");
  config.text.hf_tokenizer_name = "somebody/model";
  config.text.no_causal_mask = true;
  const auto refused_with = [&](int pad) {
    config.text.pad_id = pad;
    try {
      tokenizer_of(config, folder.path());
      return false;
    } catch (const ConfigError& e) {
      return std::string(e.what()).find("text_cfg.pad_id = " + std::to_string(pad)) != std::string::npos;
    }
  };
  write_text(folder / "vocab.txt", golden_file("wordpiece", "vocab.txt"));  // [PAD] is 0
  CHECK_FALSE(refused_with(0));
  CHECK(refused_with(5));
  std::filesystem::remove(folder / "vocab.txt");
  write_text(folder / "tokenizer.json", golden_file("bpe", "tokenizer.json"));
  CHECK_FALSE(refused_with(0));  // does not say
  CHECK_FALSE(refused_with(5));
  write_text(folder / "special_tokens_map.json", R"({"pad_token":{"content":"<|endoftext|>"}})");
  CHECK_FALSE(refused_with(1));
  CHECK(refused_with(0));
  write_text(folder / "special_tokens_map.json", R"({"pad_token":"[PAD]"})");
  CHECK_THROWS_WITH(tokenizer_of(config, folder.path()), Contains("does not have the pad_token '[PAD]'"));
  std::filesystem::remove(folder / "special_tokens_map.json");
  if (!sentence_piece_available()) return;
  write_text(folder / "tokenizer.json", golden_file("sentencepiece", "tokenizer.json"));
  CHECK_FALSE(refused_with(1));  // SigLIP's </s>
  CHECK(refused_with(0));
  for (const char* pad : {R"("<pad>")", R"({"content":"<pad>","special":true})"}) {
    write_text(folder / "tokenizer_config.json", std::string(R"({"pad_token":)") + pad + "}");
    CHECK(refused_with(1));
    CHECK_FALSE(refused_with(0));
  }
  write_text(folder / "tokenizer_config.json", R"({"pad_token":"[PAD]"})");
  CHECK_THROWS_WITH(tokenizer_of(config, folder.path()), Contains("does not have the pad_token '[PAD]'") && Contains("tokenizer.json"));
}

}  // namespace
}  // namespace twinlens::test
