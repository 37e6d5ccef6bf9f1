#include "twinlens/clip/train_step.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

// Rows [begin, end) of a batch, ready for the towers.
struct Chunk {
  Tensor pixels;           // (n, S, S, 3)
  PatchSelection patches;  // absent: all
  TokenBatch captions;     // distinct ones
  Tensor caption_row;      // (n) i64: row of each pair's caption among the distinct ones; absent when all are encoded
};

PatchSelection patches_of(const ModelConfig& config, const PairBatch& batch, std::int64_t begin, std::int64_t end,
                          const StepOptions& options) {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = begin; i < end; ++i) samples.push_back(batch.samples.empty() ? i : batch.samples[static_cast<std::size_t>(i)]);
  return draw_patches(samples, config.vision.patches(), config.vision.patch_dropout, options.seed, options.step);
}

Chunk make_chunk(const Clip& model, const PairBatch& batch, std::int64_t begin, std::int64_t end, const StepOptions& options,
                 bool training) {
  std::vector<std::vector<std::int32_t>> captions;
  std::vector<std::int64_t> rows;
  std::unordered_map<std::int64_t, std::int64_t> row_of;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const auto next = static_cast<std::int64_t>(captions.size());
    const std::int64_t key = options.encode_equal_once ? batch.caption_ids[at] : i;
    const auto [it, is_new] = row_of.try_emplace(key, next);
    if (is_new) captions.push_back(batch.captions[at]);
    rows.push_back(it->second);
  }
  const Device device = model.logit_scale.value.device();
  Chunk chunk;
  chunk.pixels = batch.pixels.slice(0, begin, end).to(device);
  if (training && model.config.vision.patch_dropout > 0.0) chunk.patches = patches_of(model.config, batch, begin, end, options).to(device);
  chunk.captions = batch_captions(model.config.text, captions, options.pack_captions).to(device);
  if (static_cast<std::int64_t>(captions.size()) < end - begin) chunk.caption_row = from_vector(rows, {end - begin}).to(device);
  return chunk;
}

struct Features {
  Tensor image, text;  // (n, E) unit
};

Features encode(const Clip& model, const Chunk& chunk, const Context& context) {
  Features f;
  f.text = model.encode_text(chunk.captions, context);
  if (chunk.caption_row.defined()) f.text = index_select(f.text, 0, chunk.caption_row);
  f.image = model.encode_image(chunk.pixels, context, chunk.patches);
  return f;
}

Tensor loss_of(const Clip& model, const PairBatch& batch, const Features& f, const StepOptions& options, Communicator& communicator) {
  const Scope scope("loss");
  const Tensor ids = from_vector(batch.caption_ids, {static_cast<std::int64_t>(batch.caption_ids.size())}).to(f.image.device());
  const ClipLossInputs in{f.image, f.text, model.logit_scale.value, ids, model.logit_bias.value};
  const Tensor loss = clip_loss(in, {options.equal_captions, options.loss, options.stream_loss}, communicator);
  return options.label_smoothing > 0.0 ? add(loss, affine(label_smoothing_term(in, communicator), options.label_smoothing, 0.0)) : loss;
}

Tensor scaled(const Tensor& loss, const StepOptions& options) {
  return options.loss_scale == 1.0 ? loss : affine(loss, options.loss_scale, 0.0);
}

std::int64_t pairs_of(const PairBatch& batch) {
  const std::int64_t n = batch.pixels.size(0);
  const auto size = static_cast<std::size_t>(n);
  check(
      n > 0 && batch.captions.size() == size && batch.caption_ids.size() == size && (batch.samples.empty() || batch.samples.size() == size),
      "train_step", "a batch needs one caption, one caption id and one sample id (or none at all) per picture", {{"pixels", batch.pixels}});
  return n;
}

// Mean cosine of different rows, of unit rows x (n, E): (|sum of rows|^2 - n) / n (n - 1).
double mean_cosine(const Tensor& x) {
  const auto n = static_cast<double>(x.size(0));
  if (n < 2.0) return 0.0;
  const auto length = static_cast<double>(norm2(sum(x, {{0}, false})).item());
  return (length * length - n) / (n * (n - 1.0));
}

FeatureFigures figures_of(const Features& f) {
  const NoGrad guard;
  const double own = static_cast<double>(sum(mul(f.image, f.text)).item()) / static_cast<double>(f.image.size(0));
  return {own, mean_cosine(f.image), mean_cosine(f.text)};
}

// In a dry run the first chunk stands for all of them: each takes the memory that the one before gave back.
bool is_repetition(std::int64_t begin) { return begin > 0 && DryRun::current() != nullptr; }

// Features of all chunks, nothing recorded.
Features encode_all(const Clip& model, const PairBatch& batch, std::int64_t chunk_size, const StepOptions& options,
                    const Context& context) {
  const NoGrad guard;
  std::vector<Tensor> images, texts;
  const std::int64_t n = pairs_of(batch);
  for (std::int64_t begin = 0; begin < n; begin += chunk_size) {
    const std::int64_t end = std::min(n, begin + chunk_size);
    if (is_repetition(begin)) {
      images.push_back(empty({end - begin, model.config.embed_dim}, DType::f32, images[0].device()));
      texts.push_back(empty({end - begin, model.config.embed_dim}, DType::f32, images[0].device()));
      continue;
    }
    const Features f = encode(model, make_chunk(model, batch, begin, end, options, context.training), context);
    images.push_back(f.image);
    texts.push_back(f.text);
  }
  return {concat(images, 0), concat(texts, 0)};
}

}  // namespace

double forward_backward(Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context, Communicator& communicator,
                        FeatureFigures* figures) {
  return static_cast<double>(queue_forward_backward(model, batch, options, context, communicator, figures).item());
}

Tensor queue_forward_backward(Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context,
                              Communicator& communicator, FeatureFigures* figures) {
  const std::int64_t n = pairs_of(batch);
  if (options.max_chunk <= 0 || options.max_chunk >= n) {
    const Features f = encode(model, make_chunk(model, batch, 0, n, options, context.training), context);
    if (figures != nullptr) *figures = figures_of(f);
    const Tensor loss = loss_of(model, batch, f, options, communicator);
    if (!options.backward_if_finite || std::isfinite(loss.item())) backward(scaled(loss, options));
    return loss.detach();
  }
  Features all = encode_all(model, batch, options.max_chunk, options, context);
  if (figures != nullptr) *figures = figures_of(all);
  all.image.set_requires_grad(true);
  all.text.set_requires_grad(true);
  const Tensor loss = loss_of(model, batch, all, options, communicator);
  backward(scaled(loss, options));
  Context second = context;
  second.update_statistics = false;
  for (std::int64_t begin = 0; begin < n && !is_repetition(begin); begin += options.max_chunk) {
    const std::int64_t end = std::min(n, begin + options.max_chunk);
    const Features f = encode(model, make_chunk(model, batch, begin, end, options, context.training), second);
    // The towers share no parameter, so each takes its own backward.
    if (f.text.requires_grad()) backward(f.text, all.text.grad().slice(0, begin, end));
    if (f.image.requires_grad()) backward(f.image, all.image.grad().slice(0, begin, end));
  }
  return loss.detach();
}

void average_gradients(FlatParameters& parameters, Communicator& communicator) {
  if (communicator.size() == 1) return;
  const NoGrad guard;
  parameters.settle_gradients();
  communicator.all_reduce(parameters.gradients, Communicator::Op::sum);
  parameters.gradients.copy_(affine(parameters.gradients, 1.0 / communicator.size(), 0.0));
}

double evaluate_loss(const Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context,
                     Communicator& communicator) {
  const NoGrad guard;
  const std::int64_t n = pairs_of(batch);
  const Features all = encode_all(model, batch, options.max_chunk > 0 ? options.max_chunk : n, options, context);
  return static_cast<double>(loss_of(model, batch, all, options, communicator).item());
}

}  // namespace twinlens
