#include "clip/src/text/unigram_model.h"

#include <cstring>
#include <set>

#include "clip/src/text/json_parts.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// Protocol buffers' wire format, as far as a SentencePiece model (sentencepiece_model.proto) needs it.
void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_number(std::string& out, std::uint32_t field, std::int64_t value) {
  put_varint(out, field << 3);
  put_varint(out, static_cast<std::uint64_t>(value));
}
void put_bytes(std::string& out, std::uint32_t field, const std::string& value) {
  put_varint(out, field << 3 | 2U);
  put_varint(out, value.size());
  out += value;
}
void put_float(std::string& out, std::uint32_t field, float value) {
  put_varint(out, field << 3 | 5U);
  char bytes[4];
  std::memcpy(bytes, &value, 4);
  out.append(bytes, 4);
}

enum PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };

std::string base64_decoded(const std::string& text) {
  static const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const std::size_t value = alphabet.find(c);
    if (value == std::string::npos) continue;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count);
  }
  return out;
}

// The first "precompiled_charsmap" anywhere within; empty when there is none.
std::string charsmap_in(const nlohmann::json& json) {
  if (json.is_object() && json.contains("precompiled_charsmap") && json["precompiled_charsmap"].is_string()) {
    return base64_decoded(json["precompiled_charsmap"].get<std::string>());
  }
  for (const nlohmann::json& part : json) {
    if (!part.is_structured()) continue;
    if (std::string found = charsmap_in(part); !found.empty()) return found;
  }
  return {};
}

bool adds_prefix(const nlohmann::json& pre_tokenizer) {
  const std::string text = pre_tokenizer.dump();
  return text.find("\"prepend_scheme\":\"never\"") == std::string::npos && text.find("\"add_prefix_space\":false") == std::string::npos;
}

// Cleaning leaves single spaces, so that all of these do nothing to them but to write them as SentencePiece does.
bool is_of_sentence_piece(const nlohmann::json& step) {
  return is_step(step, "Precompiled") || is_step(step, "Strip") || replaces(step, " {2,}", " ") || replaces(step, " {2,}", "▁") ||
         replaces(step, " ", "▁") || replaces(step, "\\A +| +\\z", "") || replaces(step, "\\A▁", "▁▁");
}

// What canonicalize has done already: lower case, no punctuation, single spaces.
bool is_canonical(const nlohmann::json& step) {
  return is_step(step, "Lowercase") || (is_step(step, "Replace") && part_of(step, "content") == "") || replaces(step, "\\s+", " ");
}

// Throws ConfigError for what SentencePiece would do otherwise.
void check_unigram(const nlohmann::json& json, const std::string& source, bool canonical) {
  for (const nlohmann::json* step : steps_of(part_of(json, "normalizer"), "normalizers")) {
    if (!is_of_sentence_piece(*step) && !(canonical && is_canonical(*step)))
      refuse_part("normalizer", *step, source, "Precompiled, Strip, Replace of spaces");
  }
  const nlohmann::json& words = part_of(json, "pre_tokenizer");
  auto splits = steps_of(words, "pretokenizers");
  if (splits.size() == 2 && is_step(*splits[0], "WhitespaceSplit")) splits.erase(splits.begin());
  if (splits.size() != 1 || !is_step(*splits[0], "Metaspace") || part_of(*splits[0], "replacement") != "▁") {
    refuse_part("pre_tokenizer", words, source, "Metaspace, alone or after WhitespaceSplit");
  }
  check_added_tokens(json, source);
}

// The fields of a message in Protocol Buffers' wire format, one after the other.
class ProtoFields {
 public:
  explicit ProtoFields(std::string_view bytes) : rest_(bytes) {}

  // False at the end and where the bytes are no such format. `content` is empty unless the field holds bytes.
  bool next(std::uint64_t& field, std::string_view& content) {
    content = {};
    if (rest_.empty() || broken_) return false;
    const std::uint64_t tag = varint();
    field = tag >> 3U;
    switch (tag & 7U) {
      case 0: varint(); break;
      case 1: take(8); break;
      case 2: content = take(varint()); break;
      case 5: take(4); break;
      default: broken_ = true;
    }
    broken_ = broken_ || tag > 0xFFFFFFFFU;
    return !broken_;
  }
  bool broken() const { return broken_; }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    broken_ = true;
    return 0;
  }
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size()) {
      broken_ = true;
      return {};
    }
    const std::string_view out = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(static_cast<std::size_t>(size));
    return out;
  }

  std::string_view rest_;
  bool broken_ = false;
};

std::uint32_t u32_at(std::string_view bytes, std::size_t i) {
  std::uint32_t out = 0;
  for (std::size_t k = 4; k-- > 0;) out = out << 8U | static_cast<unsigned char>(bytes[i + k]);
  return out;
}

// What is wrong with a map, empty for nothing: the trie's size in bytes, a double array (Darts-clone) of units of four bytes, and the
// replacements, each ended by a zero. A child lies at the unit's place, xor its offset, xor a byte; a value at the same without the byte.
std::string fault_of(std::string_view map) {
  if (map.size() < 4) return "it has " + std::to_string(map.size()) + " bytes";
  const std::size_t bytes = u32_at(map, 0);
  if (bytes % 4 != 0 || bytes == 0 || bytes >= map.size() - 4) {
    return "its trie of " + std::to_string(bytes) + " bytes does not fit into " + std::to_string(map.size());
  }
  if (map.back() != '\0') return "its last replacement has no end";
  const std::size_t units = bytes / 4, texts = map.size() - 4 - bytes;
  for (std::size_t i = 0; i < units; ++i) {
    const std::uint32_t unit = u32_at(map, 4 + 4 * i);
    if (i > 0 && unit >> 31U != 0) continue;  // a value
    const std::size_t children = i ^ (std::size_t{unit >> 10U} << ((unit & (1U << 9U)) >> 6U));
    if ((children | 0xFFU) >= units) return "unit " + std::to_string(i) + " of its trie points outside of it";
    if ((unit >> 8U & 1U) != 0 && (u32_at(map, 4 + 4 * children) & 0x7FFFFFFFU) >= texts) {
      return "unit " + std::to_string(i) + " of its trie names a replacement that is not there";
    }
  }
  return {};
}

std::string build(const nlohmann::json& json, std::int64_t end, const std::string& source) {
  std::set<std::string> controls;
  for (const auto& token : json.value("added_tokens", nlohmann::json::array())) {
    if (token.value("special", false)) controls.insert(token.at("content").get<std::string>());
  }
  const auto& model = json.at("model");
  const auto unknown = model.at("unk_id").get<std::int64_t>();
  std::string out, trainer, normalizer;
  const bool end_by_name = end < 0;
  std::int64_t id = 0, pad = -1;
  std::string end_piece, pad_piece, unknown_piece;
  for (const auto& entry : model.at("vocab")) {
    const auto piece = entry.at(0).get<std::string>();
    const bool is_byte = piece.size() == 6 && piece.starts_with("<0x") && model.value("byte_fallback", false);
    const int type = id == unknown ? kUnknown : controls.count(piece) != 0 ? kControl : is_byte ? kByte : kNormal;
    if (end_by_name && (piece == "</s>" || piece == "<eos>")) end = id;
    if (id == end) end_piece = piece;
    if (piece == "<pad>") pad = id, pad_piece = piece;
    if (id == unknown) unknown_piece = piece;
    std::string bytes;
    put_bytes(bytes, 1, piece);
    put_float(bytes, 2, entry.at(1).get<float>());
    put_number(bytes, 3, type);
    put_bytes(out, 1, bytes);
    ++id;
  }
  if (end >= id) {
    throw FileError("the end of text has the id " + std::to_string(end) + ", outside the vocabulary of " + std::to_string(id) + "; " +
                    source + "; fetch the file again");
  }
  put_number(trainer, 3, 1);  // unigram
  put_number(trainer, 4, id);
  put_number(trainer, 35, model.value("byte_fallback", false) ? 1 : 0);
  put_number(trainer, 40, unknown);
  put_number(trainer, 41, -1);
  put_number(trainer, 42, end);
  put_number(trainer, 43, pad);
  put_bytes(trainer, 45, unknown_piece);
  if (end >= 0) put_bytes(trainer, 47, end_piece);
  if (pad >= 0) put_bytes(trainer, 48, pad_piece);
  put_bytes(out, 2, trainer);
  put_bytes(normalizer, 1, "tokenizer.json");
  put_bytes(normalizer, 2, charsmap_in(json.value("normalizer", nlohmann::json::object())));
  put_number(normalizer, 3, adds_prefix(json.value("pre_tokenizer", nlohmann::json::object())) ? 1 : 0);
  put_number(normalizer, 4, 1);
  put_number(normalizer, 5, 1);
  put_bytes(out, 3, normalizer);
  return out;
}

}  // namespace

std::string sentence_piece_model(const nlohmann::json& json, const std::string& source, std::int64_t end, bool canonical) {
  try {
    std::string model = build(json, end, source);
    check_unigram(json, source, canonical);
    return model;
  } catch (const nlohmann::json::exception& e) {
    throw FileError("not a unigram tokenizer: " + std::string(e.what()) + "; " + source + "; use the tokenizer.json of a SigLIP model");
  }
}

void check_charsmaps(std::string_view model, const std::string& source) {
  constexpr std::uint64_t kNormalizer = 3, kDenormalizer = 5, kMap = 2;
  ProtoFields fields(model);
  std::uint64_t field = 0;
  std::string_view content;
  bool broken = false;
  while (fields.next(field, content)) {
    if (field != kNormalizer && field != kDenormalizer) continue;
    ProtoFields settings(content);
    while (settings.next(field, content)) {
      if (field != kMap || content.empty()) continue;
      if (const std::string fault = fault_of(content); !fault.empty()) {
        throw FileError("the model's replacements of characters (precompiled_charsmap) are damaged: " + fault + "; " + source +
                        "; fetch the file again");
      }
    }
    broken = broken || settings.broken();
  }
  if (broken || fields.broken()) throw FileError("not a SentencePiece model: its fields are damaged; " + source + "; fetch the file again");
}

}  // namespace twinlens
