#include "twinlens/clip/tokenizer.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "twinlens/clip/templates.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Ids = std::vector<std::int32_t>;

const Tokenizer& standard() {
  static const auto tokenizer = clip_tokenizer();
  return *tokenizer;
}

TEST_CASE("tokenizer: known vectors of CLIP") {
  const std::map<std::string, Ids> known = {
      {"a diagram", {320, 22697}},
      {"a dog", {320, 1929}},
      {"a cat", {320, 2368}},
      {"hello world!", {3306, 1002, 256}},
      {"a photo of a cat.", {320, 1125, 539, 320, 2368, 269}},
      {"this is a test string of text", {589, 533, 320, 1628, 9696, 539, 4160}},
      {"You should've done this", {592, 1535, 1200, 1700, 589}},
      {"I'm can't WE'LL they'd", {328, 880, 753, 713, 649, 1342, 889, 1896}},
      {"1233", {272, 273, 274, 274}},
      {"12 33", {272, 273, 274, 274}},
      {"1,234.5", {272, 267, 273, 274, 275, 269, 276}},
      {"CLIP's ViT-B/32 @ 224px", {9289, 568, 35580, 268, 321, 270, 274, 273, 287, 273, 273, 275, 10262}},
      {"C++", {322, 19056}},
      {"foo@bar.com https://x.y/z", {23435, 287, 2411, 269, 2464, 30901, 12441, 343, 269, 344, 270, 345}},
      {"  multiple   spaces\tand\nnewlines ", {6470, 9006, 537, 1218, 3418}},
      {"a\u00a0b", {320, 321}},
      {"a\u3000b", {320, 321}},
      {"a\u0085b", {320, 321}},
      {"\u200b", {9844}},
      {"&lt;b&gt; &amp;amp; html", {283, 321, 285, 261, 18231}},
      {"<|startoftext|> inside <|endoftext|>", {49406, 2912, 49407}},
      {"<start_of_text> inside <end_of_text>", {49406, 2912, 49407}},
      {"naïve café", {1097, 35689, 563, 15304}},
      {"Ünïcödé", {6522, 77, 35689, 66, 7255, 67, 4166}},
      {"İstanbul", {328, 16384, 11231}},
      {"ΑΒΓς", {138, 109, 138, 110, 138, 111, 139, 480}},
      {"Straße ÉCOLE", {1894, 127, 253, 324, 3459, 8166}},
      {"日本語のテキスト", {39121, 44353, 34002, 252, 21575, 2429, 228, 47121, 32421, 486}},
      {"🙂👍", {32006, 4201}},
      {"²½ Ⅷ ٣", {41175, 33613, 158, 227, 371, 149, 352}},
      {"!!! ??? ...", {995, 3824, 678}},
      {"supercalifragilisticexpialidocious", {1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466}},
      {std::string(80, 'a'), {23126, 23126, 23126, 23126, 23126, 23126, 23126, 23126, 23126, 6727, 19336}},
      {"x_y-z", {343, 318, 344, 268, 345}},
      {"\u017f'\u017f \u212a", {129, 379, 6, 129, 379, 330}},
      {"mixedCASE123abc", {29376, 2068, 272, 273, 274, 5334}},
      {"", {}},
      {"  ", {}},
  };
  for (const auto& [text, ids] : known) {
    CAPTURE(text);
    CHECK(standard().encode(text) == ids);
  }
  CHECK(standard().decode(standard().encode("Hello, World! 🙂")) == "hello , world ! 🙂 ");
}

TEST_CASE("tokenizer: fixtures of open_clip") {
  std::ifstream file(std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/tokenizer.json");
  REQUIRE(file);
  const nlohmann::json golden = nlohmann::json::parse(file);
  for (const auto& entry : golden["encode"]) {
    CAPTURE(entry.dump());
    CHECK(standard().encode(entry["text"].get<std::string>()) == entry["ids"].get<Ids>());
  }
  for (const char* style : {"open_clip", "openai"}) {
    ClipTokenizerOptions options;
    options.special_names = style == std::string("openai") ? SpecialNames::openai : SpecialNames::open_clip;
    const auto tokenizer = clip_tokenizer(options);
    for (const auto& entry : golden["special"]) {
      CAPTURE(style, entry.dump());
      CHECK(tokenizer->encode(entry["text"].get<std::string>()) == entry[style].get<Ids>());
    }
  }
  for (const auto& entry : golden["decode"]) CHECK(standard().decode(entry["ids"].get<Ids>()) == entry["text"].get<std::string>());
  for (const auto& entry : golden["padded"]) {
    Ids row = standard().tokenize(entry["text"].get<std::string>(), entry["context_length"].get<std::int64_t>()).ids;
    row.resize(entry["context_length"].get<std::size_t>());
    CHECK(row == entry["row"].get<Ids>());
  }
}

TEST_CASE("tokenizer: contractions in capitals, where nothing lower-cases") {
  ClipTokenizerOptions options;
  options.cleaning = Cleaning::whitespace;
  const auto cased = clip_tokenizer(options);
  // SimpleTokenizer(clean='whitespace') of open_clip 3.3.0.
  CHECK(cased->encode("WE'LL GO") == std::vector<std::int32_t>{54, 292, 6, 43, 299, 38, 302});
  CHECK(cased->encode("IT'S OK") == std::vector<std::int32_t>{40, 307, 6, 306, 46, 298});
  CHECK(cased->encode("DON'T") == std::vector<std::int32_t>{35, 46, 301, 6, 307});
  options.lower_case = true;  // as Hugging Face's normalizer: each letter by itself, without a final sigma
  const auto lower = clip_tokenizer(options), own = clip_tokenizer({});
  CHECK(lower->encode("WE'LL GO") == own->encode("we'll go"));
  CHECK(lower->encode("\xCE\x91\xCE\xA3 \xC4\xB0") == lower->encode("\xCE\xB1\xCF\x83 i\xCC\x87"));
}

TEST_CASE("tokenizer: start, end and truncation") {
  const Tokens fits = standard().tokenize("a photo of a cat.", 8);
  CHECK(fits.ids == Ids{49406, 320, 1125, 539, 320, 2368, 269, 49407});
  CHECK_FALSE(fits.truncated);
  const Tokens cut = standard().tokenize("a photo of a cat.", 7);
  CHECK(cut.ids == Ids{49406, 320, 1125, 539, 320, 2368, 49407});
  CHECK(cut.truncated);
  CHECK(standard().tokenize("", 77).ids == Ids{49406, 49407});
  CHECK_THROWS_WITH(standard().tokenize("a", 1), "context length 1 is too short; tokenize; use at least 2 (start and end)");
}

// open_clip's tokenizer does not know the size of the embedding.
TEST_CASE("tokenizer: a model with more rows than tokens has all of the vocabulary") {
  const auto tokenizer = find_tokenizer("", {"", "", 60'000});
  CHECK(tokenizer->vocab_size() == 49408);
  CHECK(tokenizer->tokenize("a photo of a cat.", 8).ids == standard().tokenize("a photo of a cat.", 8).ids);
}

TEST_CASE("tokenizer: small vocabularies use the first merges") {
  ClipTokenizerOptions options;
  options.vocab_size = 514;
  const auto bytes_only = clip_tokenizer(options);
  CHECK(bytes_only->encode("in") == Ids{72, 77 + 256});
  CHECK(bytes_only->tokenize("!", 4).ids == Ids{512, 256, 513});
  options.vocab_size = 515;  // one merge: "i n"
  CHECK(clip_tokenizer(options)->encode("inin ina") == Ids{512, 72, 77 + 256, 512, 64 + 256});
  options.vocab_size = 513;
  CHECK_THROWS_WITH(clip_tokenizer(options), "vocab_size 513 is not possible; clip_tokenizer; use 514 to 49408");
  options.vocab_size = 49409;
  CHECK_THROWS_AS(clip_tokenizer(options), ConfigError);
}

TEST_CASE("tokenizer: decode") {
  CHECK(standard().decode({49406, 320, 2368, 49407}) == "<start_of_text>a cat <end_of_text>");
  CHECK(standard().decode({158}) == "\uFFFD");
  CHECK_THROWS_WITH(standard().decode({49408}), Catch::Contains("token id 49408 is outside the vocabulary of 49408"));
  CHECK_THROWS_AS(standard().decode({-1}), ConfigError);
}

TEST_CASE("tokenizer: bytes that are not UTF-8 and long texts") {
  CHECK(standard().encode("a \xff\xfe b") == standard().encode("a \uFFFD\uFFFD b"));
  CHECK(standard().encode("\xe2\x82") == standard().encode("\uFFFD"));
  CHECK(standard().encode(std::string(100000, 'z')).size() > 10000);
  CHECK(clean_text("It\u2019s &EACUTE;COLE &lt; sch\u00c3\u00b6n \ufb01ne", Cleaning::ftfy) == "it's école < schön fine");
  CHECK(clean_text("It_is A&amp;B (x).", Cleaning::whitespace) == "It_is A&B (x).");
  CHECK(clean_text("It_is A&amp;B (x).", Cleaning::canonicalize) == "it is ab x");
  CHECK(clean_text("&amp;lt;  B&eacute; ΑΣ &#x80;\x1c&notit;", Cleaning::none) == "< bé ας € ¬it;");
}

TEST_CASE("tokenizer: one object serves many threads", "[thread]") {
  const auto tokenizer = clip_tokenizer();
  const Ids expected = tokenizer->encode("a photo of a cat.");
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; ++i) {
        (void)tokenizer->encode("word" + std::to_string(i * 4 + t) + "x");
        if (tokenizer->encode("a photo of a cat.") != expected) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("templates") {
  CHECK(load_templates("openai").size() == 80);
  CHECK(load_templates("simple").size() == 7);
  CHECK(load_templates("simple")[0] == "itap of a {}.");
  CHECK(fill_template("a {} in a {} game.", "cat") == "a cat in a cat game.");
  CHECK(fill_template(load_templates("photo")[0], "red apple") == "a photo of a red apple.");
  CHECK_THROWS_WITH(load_templates("nope.txt"),
                    "no such template preset or file; 'nope.txt'; use openai, simple, photo, none or a file with one "
                    "template a line");
}

}  // namespace
}  // namespace twinlens
