// The one file that knows libsentencepiece.
#include "twinlens/clip/tokenizer.h"
#include "twinlens/kernels/error.h"

#if defined(TWINLENS_WITH_SENTENCEPIECE)
#include <sentencepiece_processor.h>

#include "clip/src/text/framed.h"
#include "clip/src/text/json_parts.h"
#include "clip/src/text/unigram_model.h"
#endif

namespace twinlens {

#if defined(TWINLENS_WITH_SENTENCEPIECE)
namespace {

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(std::string_view model, const std::string& source, const SentencePieceOptions& options) : options_(options) {
    check_charsmaps(model, source);
    const auto status = processor_.LoadFromSerializedProto({model.data(), model.size()});
    if (!status.ok()) {
      throw FileError("not a SentencePiece model: " + std::string(status.message()) + "; " + source + "; fetch the file again");
    }
    end_ = processor_.eos_id();
    if (end_ < 0) throw FileError("the SentencePiece model has no end of sentence; " + source + "; use a model with </s>");
    const std::string& pad = options_.pad_token;
    if (pad.empty()) {
      // SigLIP pads with T5's </s>; Gemma's vocabulary (SigLIP 2) and those with a start of text have a pad of their own.
      const bool is_siglip = processor_.IdToPiece(end_) == "</s>" && options_.start_id < 0;
      pad_ = is_siglip || processor_.pad_id() < 0 ? end_ : processor_.pad_id();
    } else {
      pad_ = processor_.PieceToId(pad);
      if (processor_.IdToPiece(pad_) != pad) refuse_pad(pad, source);
    }
    if (options_.start_id >= vocab_size()) {
      throw FileError("the start of text has the id " + std::to_string(options_.start_id) + ", outside the vocabulary of " +
                      std::to_string(vocab_size()) + "; " + source + "; fetch the file again");
    }
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    const std::string clean = clean_text(text, options_.cleaning);
    std::vector<int> ids;
    const auto status = processor_.Encode(clean, &ids);
    if (!status.ok()) throw Error("SentencePiece cannot encode: " + std::string(status.message()) + "; tokenize; report the text");
    return ids;
  }

  Tokens tokenize(std::string_view text, std::int64_t context_length) const override {
    return framed(encode(text), context_length, options_.start_id, end_);
  }

  std::string decode(const std::vector<std::int32_t>& ids) const override {
    for (const std::int32_t id : ids) {
      if (id >= 0 && id < vocab_size()) continue;
      throw ConfigError("token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size()) +
                        "; decode; use the tokenizer that made the ids");
    }
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) throw Error("SentencePiece cannot decode: " + std::string(status.message()) + "; decode; report the ids");
    return text;
  }

  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::int32_t start_id() const override { return options_.start_id; }
  std::int32_t end_id() const override { return end_; }
  std::int32_t pad_id() const override { return pad_; }

 private:
  SentencePieceOptions options_;
  sentencepiece::SentencePieceProcessor processor_;
  std::int32_t end_ = 1, pad_ = 1;
};

}  // namespace

std::shared_ptr<const Tokenizer> sentence_piece_tokenizer(std::string_view model, const std::string& source,
                                                          const SentencePieceOptions& options) {
  return std::make_shared<SentencePiece>(model, source, options);
}

bool sentence_piece_available() { return true; }

#else

std::shared_ptr<const Tokenizer> sentence_piece_tokenizer(std::string_view, const std::string& source, const SentencePieceOptions&) {
  throw ConfigError("SentencePiece models cannot be read by this build; " + source + "; install libsentencepiece-dev and build again");
}

bool sentence_piece_available() { return false; }

#endif

}  // namespace twinlens
