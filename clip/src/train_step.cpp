#include "twinlens/clip/train_step.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include "clip/src/chunks.h"
#include "clip/src/step_inputs.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/dry_run.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

struct Features {
  Tensor image, text;  // (n, E) unit
};

Tensor encode_texts(const Clip& model, const StepInputs& in, const Context& context) {
  const Tensor text = model.encode_text(in.captions, context);
  return in.caption_row.defined() ? index_select(text, 0, in.caption_row) : text;
}

Features encode(const Clip& model, const StepInputs& in, const Context& context) {
  Features f;
  f.text = encode_texts(model, in, context);
  f.image = model.encode_image(in.pixels, context, in.patches);
  return f;
}

void check_options(const StepOptions& o) {
  if (!(o.label_smoothing >= 0.0 && o.label_smoothing <= 1.0))
    throw ConfigError(fmt::format("training step: label_smoothing is {}; StepOptions; give a share from 0 to 1", o.label_smoothing));
  if (o.label_smoothing > 0.0 && o.loss != LossKind::softmax)
    throw ConfigError("training step: only the softmax loss has label smoothing; StepOptions; set label_smoothing to 0");
  if (o.max_chunk < 0)
    throw ConfigError(fmt::format("training step: max_chunk is {}; StepOptions; give at least 0, which is all at once", o.max_chunk));
  if (!(std::isfinite(o.loss_scale) && o.loss_scale > 0.0))
    throw ConfigError(fmt::format("training step: loss_scale is {}; StepOptions; give a number above 0", o.loss_scale));
}

// Whether a parameter wants a gradient: a locked tower has none.
template <class Module>
bool learns(Module& module) {
  const Collector all = collect(module);
  return std::any_of(all.parameters.begin(), all.parameters.end(),
                     [](const NamedParameter& p) { return p.parameter->value.requires_grad(); });
}

bool has_backward(const Tensor& loss, const StepOptions& options) { return !options.backward_if_finite || std::isfinite(loss.item()); }

// Inputs where the model is.
StepInputs inputs_of(const Clip& model, const PairBatch& batch, std::int64_t begin, std::int64_t end, const StepOptions& options,
                     const Context& context) {
  return step_inputs(model, batch, begin, end, options, context.training).to(model.logit_scale.value.device());
}

Tensor ids_of(const PairBatch& batch, Device device) {
  return from_vector(batch.caption_ids, {static_cast<std::int64_t>(batch.caption_ids.size())}).to(device);
}

Tensor loss_of(const Clip& model, const Tensor& ids, const Features& f, const StepOptions& options, Communicator& communicator) {
  const Scope scope("loss");
  const ClipLossInputs in{f.image, f.text, model.logit_scale.value, ids, model.logit_bias.value};
  const Tensor loss = clip_loss(in, {options.equal_captions, options.loss, options.stream_loss}, communicator);
  return options.label_smoothing > 0.0 ? add(loss, affine(label_smoothing_term(in, communicator), options.label_smoothing, 0.0)) : loss;
}

Tensor scaled(const Tensor& loss, const StepOptions& options) {
  if (options.card_loss_scale.defined()) return mul(loss, options.card_loss_scale);
  return options.loss_scale == 1.0 ? loss : affine(loss, options.loss_scale, 0.0);
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

// In a dry run the first chunk of a size stands for all: each takes the memory that the one before gave back.
bool is_repetition(const Chunks& chunks, std::int64_t i) { return DryRun::current() != nullptr && i > 0 && i != chunks.larger; }

// Features of all chunks, nothing recorded.
Features encode_all(const Clip& model, const PairBatch& batch, std::int64_t chunk_size, const StepOptions& options,
                    const Context& context) {
  const NoGrad guard;
  std::vector<Tensor> images, texts;
  const std::int64_t n = pairs_of(batch);
  const Chunks chunks(n, chunk_size);
  for (std::int64_t i = 0; i < chunks.count; ++i) {
    const std::int64_t begin = chunks.begin(i), end = chunks.begin(i + 1);
    if (is_repetition(chunks, i)) {
      images.push_back(empty({end - begin, model.config.embed_dim}, DType::f32, images[0].device()));
      texts.push_back(empty({end - begin, model.config.embed_dim}, DType::f32, images[0].device()));
      continue;
    }
    const Features f = encode(model, inputs_of(model, batch, begin, end, options, context), context);
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

Tensor queue_forward_backward(Clip& model, const StepInputs& inputs, const StepOptions& options, const Context& context,
                              Communicator& communicator, FeatureFigures* figures) {
  check_options(options);
  const Features f = encode(model, inputs, context);
  if (figures != nullptr) *figures = figures_of(f);
  const Tensor loss = loss_of(model, inputs.caption_ids, f, options, communicator);
  if (has_backward(loss, options)) backward(scaled(loss, options));
  return loss.detach();
}

Tensor queue_forward_backward(Clip& model, const PairBatch& batch, const StepOptions& options, const Context& context,
                              Communicator& communicator, FeatureFigures* figures) {
  check_options(options);
  const std::int64_t n = pairs_of(batch);
  if (options.max_chunk <= 0 || options.max_chunk >= n) {
    return queue_forward_backward(model, inputs_of(model, batch, 0, n, options, context), options, context, communicator, figures);
  }
  Features all = encode_all(model, batch, options.max_chunk, options, context);
  if (figures != nullptr) *figures = figures_of(all);
  all.image.set_requires_grad(learns(model.visual));
  all.text.set_requires_grad(learns(model.text));
  const Tensor loss = loss_of(model, ids_of(batch, all.image.device()), all, options, communicator);
  if (!has_backward(loss, options)) return loss.detach();
  backward(scaled(loss, options));
  Context second = context;
  second.update_statistics = false;
  const Chunks chunks(n, options.max_chunk);
  for (std::int64_t i = 0; i < chunks.count; ++i) {
    if (is_repetition(chunks, i)) continue;
    const std::int64_t begin = chunks.begin(i), end = chunks.begin(i + 1);
    const StepInputs in = inputs_of(model, batch, begin, end, options, context);
    // The towers share no parameter, so each takes its own backward; a locked one is not encoded again.
    const Tensor text = all.text.requires_grad() ? encode_texts(model, in, second) : Tensor{};
    const Tensor image = all.image.requires_grad() ? model.encode_image(in.pixels, second, in.patches) : Tensor{};
    if (text.defined()) backward(text, all.text.grad().slice(0, begin, end));
    if (image.defined()) backward(image, all.image.grad().slice(0, begin, end));
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
  check_options(options);
  const NoGrad guard;
  const std::int64_t n = pairs_of(batch);
  const Features all = encode_all(model, batch, options.max_chunk > 0 ? options.max_chunk : n, options, context);
  return static_cast<double>(loss_of(model, ids_of(batch, all.image.device()), all, options, communicator).item());
}

}  // namespace twinlens
