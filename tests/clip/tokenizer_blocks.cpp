// 200,000 strings against open_clip's tokenizer, with ftfy and without: the strings are made here by the rule of
// tests/golden/make_tokenizer_blocks.py, the ids compared as hashes of 1,000 strings.

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "clip/src/embedded.h"
#include "clip/src/text/mojibake_rules.h"
#include "clip/src/text/unicode.h"
#include "examples/twinlens/sha256.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/toy_data.h"

#include "twinlens/clip/tokenizer.h"
#include "twinlens/core/file.h"

namespace twinlens::test {
namespace {

using Text = std::u32string;
using Texts = std::vector<Text>;

const Texts kJoints = {U" ", U"  ", U", ", U"-", U"/", U"\t", U" & ", U"'s ", U"\u00a0", U"\u3000", U" \u2019", U". "};
const Texts kEntities = {U"&amp;",     U"&lt;",   U"&gt;",   U"&quot;",    U"&#39;",   U"&eacute;",  U"&EACUTE;", U"&Eacute",
                         U"&nbsp;",    U"&#233;", U"&#xE9;", U"&amp;amp;", U"&notit;", U"&hellip;",  U"&frac12;", U"&#128;",
                         U"&#x1F600;", U"<b>",    U"</b>",   U"&AMP;lt;",  U"&copy",   U"&unknown;", U"&#0;",     U"&;"};
const Texts kMarks = {U"\u200d",     U"\ufe0f",     U"\ufe0e",     U"\U0001f3fb", U"\U0001f3ff", U"\u20e3",
                      U"\U0001f1e9", U"\U0001f1ea", U"\U000e0067", U"\U000e007f", U"#",          U"1"};
const Texts kOdd = {U"\r\n",    U"\n",     U"\x85",   U"\x1b[3;4m",       Text(1, U'\0'),   U"\ufeff",
                    U"\ufffd",  U"\u2018", U"\u201d", U"\ufb01",          U"\u0149",        U"\uff21",
                    U"\uff76",  U"\u0130", U"\u03a3", U"<start_of_text>", U"<|endoftext|>", U"\u212b",
                    U"e\u0301", U"\xc3 ",  U"?"};

// splitmix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % n); }
  template <class T>
  const T& of(const std::vector<T>& items) {
    return items[below(items.size())];
  }

 private:
  std::uint64_t state_;
};

using Range = std::pair<char32_t, char32_t>;

class Strings {
 public:
  explicit Strings(const nlohmann::json& assigned) {
    const std::string path = std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/tokenizer_words.txt.gz";
    const std::string lines = gunzip(read_file(path), path);
    for (std::size_t begin = 0; begin < lines.size();) {
      const std::size_t end = std::min(lines.find('\n', begin), lines.size());
      (lines[begin] == 'e' ? emoji_ : names_).push_back(to_utf32(lines.substr(begin + 2, end - begin - 2)));
      begin = end + 1;
    }
    for (const auto& range : assigned) {
      all_.emplace_back(range[0].get<char32_t>(), range[1].get<char32_t>());
      if (all_.back().second < 0x2600) low_.push_back(all_.back());
    }
  }

  Text make(std::uint64_t index) const {
    Random r(index * 0x2545F4914F6CDD1D);
    const std::uint64_t kind = index % 20;
    if (kind < 6) return name(r, 4);
    if (kind < 8) return points(r, all_);
    if (kind < 10) return points(r, low_);
    if (kind < 12) return insert(r, name(r, 3), kEntities);
    if (kind < 14) return emoji(r);
    if (kind < 16) return garbled(r, name(r, 2));
    if (kind < 17) {
      Texts items = kEntities;
      items.insert(items.end(), kOdd.begin(), kOdd.end());
      return insert(r, garbled(r, name(r, 2)), items);
    }
    if (kind < 18) return insert(r, name(r, 3), kOdd);
    if (kind < 19) {
      Text text;
      for (std::size_t n = 1 + r.below(60); n > 0; --n) text += static_cast<char32_t>(0x20 + r.below(0x5F));
      return text;
    }
    return to_utf32(upper_case(to_utf8(name(r, index % 100 == 19 ? 40 : 4))));
  }

 private:
  Text name(Random& r, std::size_t most) const {
    Text text = r.of(names_);
    for (std::size_t n = r.below(most); n > 0; --n) {
      text += r.of(kJoints);
      text += r.of(names_);
    }
    return text;
  }
  static Text points(Random& r, const std::vector<Range>& ranges) {
    static const Texts between = {U" ", U"7", U"'"};
    Text text;
    for (std::size_t n = 1 + r.below(24); n > 0; --n) {
      const Range range = r.of(ranges);
      text += static_cast<char32_t>(range.first + r.below(range.second - range.first + 1));
      if (r.below(6) == 0) text += r.of(between);
    }
    return text;
  }
  static Text insert(Random& r, Text text, const Texts& items) {
    for (std::size_t n = 1 + r.below(3); n > 0; --n) {
      const std::size_t at = r.below(text.size() + 1);
      text.insert(at, r.of(items));
    }
    return text;
  }
  Text emoji(Random& r) const {
    Text text;
    for (std::size_t n = 1 + r.below(8); n > 0; --n) {
      text += r.of(emoji_);
      if (r.below(3) == 0) text += r.of(kMarks);
    }
    return text;
  }
  static Text garbled(Random& r, Text text) {
    for (std::size_t n = 1 + r.below(2); n > 0; --n) {
      const CodePage& page = r.of(mojibake_rules().pages);
      Text next;
      for (const char c : to_utf8(text)) {
        const auto byte = static_cast<unsigned char>(c);
        next += byte < 0x80 ? char32_t{byte} : page.upper[byte - 0x80];
      }
      text = next;
    }
    if (r.below(4) == 0) {
      for (char32_t& c : text) c = c == 0xA0 ? U' ' : c;
    }
    return text;
  }

  Texts names_, emoji_;
  std::vector<Range> all_, low_;
};

std::string hash_of(const std::string& bytes, std::size_t digits) {
  static const TemporaryFolder folder;
  write_text(folder / "bytes", bytes);
  return program::sha256_of_file(folder / "bytes").substr(0, digits);
}

void append_ids(std::string& out, const std::vector<std::int32_t>& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i != 0) out += ',';
    out += std::to_string(ids[i]);
  }
  out += '\n';
}

TEST_CASE("tokenizer: open_clip's ids of 200,000 strings, with ftfy and without", "[tokenizer]") {
  constexpr std::size_t kSize = 1000;
  const auto golden = nlohmann::json::parse(read_file(std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/tokenizer_blocks.json"));
  const Strings strings(golden["assigned"]);
  ClipTokenizerOptions options;
  options.special_names = SpecialNames::open_clip;
  const auto none = clip_tokenizer(options);
  options.cleaning = Cleaning::ftfy;
  const auto ftfy = clip_tokenizer(options);
  std::size_t altered = 0;
  REQUIRE(golden["blocks"].size() == 200);
  for (std::size_t b = 0; b < 200; ++b) {
    CAPTURE(b);
    std::string texts, plain, fixed;
    for (std::size_t k = 0; k < kSize; ++k) {
      const std::string text = to_utf8(strings.make(b * kSize + k));
      if (k != 0) texts += '\n';
      texts += text;
      const auto ids = none->encode(text), ids_fixed = ftfy->encode(text);
      append_ids(plain, ids);
      append_ids(fixed, ids_fixed);
      altered += ids == ids_fixed ? 0 : 1;
    }
    const auto& expected = golden["blocks"][b];
    REQUIRE(hash_of(texts, 16) == expected["text"]);  // the strings are those of the generator
    CHECK(hash_of(plain, 32) == expected["none"]);
    CHECK(hash_of(fixed, 32) == expected["ftfy"]);
  }
  // All that ftfy changes, repaired encodings included, is matched: none is left out.
  CHECK(altered == golden["altered_by_ftfy"].get<std::size_t>());
}

}  // namespace
}  // namespace twinlens::test
