#include "clip/src/text/unigram_model.h"

#include <cstring>
#include <set>

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

std::string build(const nlohmann::json& json) {
  std::set<std::string> controls;
  for (const auto& token : json.value("added_tokens", nlohmann::json::array())) {
    if (token.value("special", false)) controls.insert(token.at("content").get<std::string>());
  }
  const auto& model = json.at("model");
  const auto unknown = model.at("unk_id").get<std::int64_t>();
  std::string out, trainer, normalizer;
  std::int64_t id = 0, end = -1, pad = -1;
  std::string end_piece, pad_piece, unknown_piece;
  for (const auto& entry : model.at("vocab")) {
    const auto piece = entry.at(0).get<std::string>();
    const bool is_byte = piece.size() == 6 && piece.starts_with("<0x") && model.value("byte_fallback", false);
    const int type = id == unknown ? kUnknown : controls.count(piece) != 0 ? kControl : is_byte ? kByte : kNormal;
    if (piece == "</s>" || piece == "<eos>") end = id, end_piece = piece;
    if (piece == "<pad>") pad = id, pad_piece = piece;
    if (id == unknown) unknown_piece = piece;
    std::string bytes;
    put_bytes(bytes, 1, piece);
    put_float(bytes, 2, entry.at(1).get<float>());
    put_number(bytes, 3, type);
    put_bytes(out, 1, bytes);
    ++id;
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

std::string sentence_piece_model(const nlohmann::json& json, const std::string& source) {
  try {
    return build(json);
  } catch (const nlohmann::json::exception& e) {
    throw FileError("not a unigram tokenizer: " + std::string(e.what()) + "; " + source + "; use the tokenizer.json of a SigLIP model");
  }
}

}  // namespace twinlens
