#pragma once
// The unigram model of a tokenizer.json as the bytes of a SentencePiece model.

#include <nlohmann/json.hpp>
#include <string>

namespace twinlens {

// Throws FileError naming `source` when the JSON is not Hugging Face's form of such a model.
std::string sentence_piece_model(const nlohmann::json& tokenizer_json, const std::string& source);

}  // namespace twinlens
