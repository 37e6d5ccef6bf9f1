#pragma once
// The unigram model of a tokenizer.json as the bytes of a SentencePiece model.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace twinlens {

// `end`: the id of the token that ends a text; -1: the one called </s> or <eos>. canonical: texts are canonicalized before. Throws
// FileError naming `source` when the JSON is not Hugging Face's form of such a model, ConfigError for parts that SentencePiece does not
// have.
std::string sentence_piece_model(const nlohmann::json& tokenizer_json, const std::string& source, std::int64_t end, bool canonical);

// libsentencepiece follows a model's replacements of characters (precompiled_charsmap) without looking. Throws FileError naming `source`
// when the bytes are no SentencePiece model, or one whose replacements lead out of their table.
void check_charsmaps(std::string_view model, const std::string& source);

}  // namespace twinlens
