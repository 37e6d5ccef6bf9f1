#include "twinlens/clip/embedding.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "clip/src/card_pictures.h"

#include "twinlens/clip/image.h"
#include "twinlens/clip/tokenizer_files.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/event.h"
#include "twinlens/kernels/memory.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
EvalTransform eval_transform_of(const ModelConfig& config) {
  const std::string& mode = config.preprocess.resize_mode;
  EvalTransform t;
  t.size = config.vision.image_size;
  t.mode = mode == "squash" ? ResizeMode::squash : mode == "longest" ? ResizeMode::longest : ResizeMode::shortest;
  t.fill = static_cast<std::uint8_t>(config.preprocess.fill_color);
  t.filter = config.preprocess.interpolation == "bilinear" ? Filter::bilinear : Filter::bicubic;
  return t;
}

std::shared_ptr<const Tokenizer> tokenizer_of(const ModelConfig& config, const std::string& model) {
  auto tokenizer =
      find_tokenizer(tokenizer_folder(model), {config.text.hf_tokenizer_name, config.text.tokenizer_kwargs, config.text.vocab_size});
  if (tokenizer->vocab_size() > config.text.vocab_size) {
    throw ConfigError("the tokenizer has " + std::to_string(tokenizer->vocab_size()) + " tokens, the model's vocab_size is " +
                      std::to_string(config.text.vocab_size) + "; " + (model.empty() ? "model config" : model) + "; make them fit");
  }
  // open_clip fills captions up with what its tokenizer says, whatever pad_id is. Files of a BPE need not say what that is.
  const bool reads_padding = config.text.no_causal_mask || config.text.pool_type == "last";
  if (reads_padding && tokenizer->pad_id() >= 0 && tokenizer->pad_id() != config.text.pad_id) {
    const std::string pad = std::to_string(tokenizer->pad_id());
    throw ConfigError("text_cfg.pad_id = " + std::to_string(config.text.pad_id) + " and the tokenizer fills captions up with " + pad +
                      ", which this text tower reads; " + (model.empty() ? "model config" : model) + "; set pad_id to " + pad);
  }
  return tokenizer;
}

DecodeOptions decode_options(const EmbedOptions& options, const EvalTransform& transform) {
  DecodeOptions decode{options.max_image_pixels, options.exif_orientation};
  if (options.fast_decode) {
    decode.least_scale = [transform](std::int64_t width, std::int64_t height) { return least_scale(transform, width, height); };
  }
  return decode;
}

namespace {

Tensor pixels_on_host(const std::vector<std::shared_ptr<const Image>>& images, std::int64_t s) {
  const std::int64_t size = s * s * 3;
  const Tensor pixels = empty({static_cast<std::int64_t>(images.size()), s, s, 3}, DType::u8);
  for (std::size_t k = 0; k < images.size(); ++k) {
    std::memcpy(pixels.data<std::uint8_t>() + static_cast<std::int64_t>(k) * size, images[k]->rgb.data(), static_cast<std::size_t>(size));
  }
  return pixels;
}

// Decoded pictures, transformed on the card. Pinned memory is given back when the card has read it.
Tensor pixels_on_card(const std::vector<std::shared_ptr<const Image>>& images, const EvalTransform& transform, Device card) {
  std::vector<PlannedPicture> planned;
  for (const auto& image : images) planned.push_back({image, plan_eval(transform, *image)});
  const std::int64_t s = transform.size;
  const Tensor pixels = empty({static_cast<std::int64_t>(images.size()), s, s, 3}, DType::u8, card);
  const PackedPictures packed = pack_pictures(std::move(planned), s);
  Stream& stream = current_stream(card);
  const Tensor on_card = empty({packed.bytes_on_card()}, DType::u8, card);
  copy_pinned(stream, on_card.raw(), packed.bytes.raw(), static_cast<std::size_t>(packed.bytes.count()));
  struct Copied {
    Event event;
    ~Copied() { event.wait_at_end(); }  // also where the transforms fail
  } copied;
  copied.event.record(stream);
  transform_pictures(stream, packed, on_card.raw(), pixels);
  copied.event.wait();
  return pixels;
}

void check_device_transforms(const EvalTransform& transform, Device device) {
  if (device.is_cpu()) throw UsageError("--device-transforms is for a card; --device cpu; leave it out, or use --device cuda");
  if (transform.mode == ResizeMode::longest)
    throw ConfigError("--device-transforms has no padding; a model whose pictures are resized by their longest side; leave it out");
}

}  // namespace

LoadedPictures load_pictures(const Clip& model, const std::vector<std::string>& bytes, const std::vector<std::string>& names,
                             const EmbedOptions& options) {
  if (bytes.size() != names.size()) {
    throw ConfigError("load_pictures: " + std::to_string(bytes.size()) + " pictures and " + std::to_string(names.size()) +
                      " names; its arguments; give one name a picture");
  }
  const EvalTransform transform = eval_transform_of(model.config);
  const Device device = model.logit_scale.value.device();
  const DecodeOptions decode = decode_options(options, transform);
  if (options.device_transforms) check_device_transforms(transform, device);
  LoadedPictures out;
  const auto n = static_cast<std::int64_t>(bytes.size());
  std::vector<std::shared_ptr<const Image>> images(bytes.size()), kept;
  std::vector<std::string> errors(bytes.size());
  parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      try {
        Image image = decode_image(bytes[at], names[at], decode);
        images[at] = std::make_shared<const Image>(options.device_transforms ? std::move(image) : apply(transform, image));
      } catch (const std::exception& e) {  // nothing may leave a parallel region
        errors[at] = e.what();
      }
    }
  });
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (images[at] != nullptr) {
      out.kept.push_back(i);
      kept.push_back(std::move(images[at]));
    } else {
      out.skipped.push_back({names[at], errors[at]});
    }
  }
  out.pixels = options.device_transforms && !kept.empty() ? pixels_on_card(kept, transform, device) : pixels_on_host(kept, transform.size);
  return out;
}

namespace {
Tensor finite(const char* of, const Tensor& features) {
  if (const std::int64_t bad = count_nonfinite(features).to_ints()[0]; bad > 0) {
    throw NumericError(std::string("embedding: features of ") + of + " are not finite (" + std::to_string(bad) + " of " +
                       std::to_string(features.count()) +
                       " numbers of a batch); the weights are not, or the precision is too low for them; use another checkpoint, or fp32");
  }
  return features;
}
}  // namespace

Tensor embed_pictures(const Clip& model, const Tensor& pixels, const EmbedOptions& options) {
  const NoGrad guard;
  const Tensor input = pixels.to(model.logit_scale.value.device());
  return finite("pictures",
                (options.normalize ? model.encode_image(input, options.context) : model.visual(input, options.context)).to(kCpu));
}

Tensor embed_image_files(const Clip& model, const std::vector<std::string>& paths, const EmbedOptions& options) {
  check(!paths.empty() && options.batch_size > 0, "embed_image_files", "needs at least one path and a positive batch size");
  const NoGrad guard;
  std::vector<Tensor> parts;
  for (std::size_t begin = 0; begin < paths.size(); begin += static_cast<std::size_t>(options.batch_size)) {
    const std::size_t end = std::min(paths.size(), begin + static_cast<std::size_t>(options.batch_size));
    const std::vector<std::string> names(paths.begin() + static_cast<std::ptrdiff_t>(begin),
                                         paths.begin() + static_cast<std::ptrdiff_t>(end));
    std::vector<std::string> bytes;
    for (const std::string& name : names) bytes.push_back(read_file_or_pipe(name));
    const LoadedPictures pictures = load_pictures(model, bytes, names, options);
    if (!pictures.skipped.empty()) throw FileError(pictures.skipped.front().reason);
    parts.push_back(embed_pictures(model, pictures.pixels, options));
  }
  return concat(parts, 0);
}

Tensor embed_texts(const Clip& model, const Tokenizer& tokenizer, const std::vector<std::string>& texts, const EmbedOptions& options) {
  check(!texts.empty() && options.batch_size > 0, "embed_texts", "needs at least one text and a positive batch size");
  const NoGrad guard;
  std::vector<Tensor> parts;
  for (std::size_t begin = 0; begin < texts.size(); begin += static_cast<std::size_t>(options.batch_size)) {
    const std::size_t end = std::min(texts.size(), begin + static_cast<std::size_t>(options.batch_size));
    std::vector<std::vector<std::int32_t>> tokens;
    for (std::size_t i = begin; i < end; ++i) tokens.push_back(tokenizer.tokenize(texts[i], model.config.text.context_length).ids);
    const TokenBatch packed = batch_captions(model.config.text, tokens).to(model.logit_scale.value.device());
    parts.push_back(
        finite("texts", (options.normalize ? model.encode_text(packed, options.context) : model.text(packed, options.context)).to(kCpu)));
  }
  return concat(parts, 0);
}

}  // namespace twinlens
