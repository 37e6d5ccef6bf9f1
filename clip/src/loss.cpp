#include "twinlens/clip/loss.h"

#include <limits>
#include <vector>

#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// What both forms need to know of the batch.
struct Batch {
  std::int64_t n = 0, first = 0;  // rows of this rank, and the column of its first
  Tensor texts;                   // (N, d) of all ranks
  Tensor own_ids, all_ids;        // (n), (N); absent unless equal captions are left out
};

// --- the textbook form ------------------------------------------------------------------------------------------------------------------

Tensor own_columns(const Batch& b, Device device) {
  std::vector<std::int64_t> columns;
  for (std::int64_t i = 0; i < b.n; ++i) columns.push_back(b.first + i);
  return from_vector(columns, {b.n}).to(device);
}

// (n, N) bool: columns of other rows with an equal caption.
Tensor equal_caption_mask(const Batch& b) {
  if (!b.own_ids.defined()) return {};
  Tensor mask = equal(b.own_ids.reshape({-1, 1}), b.all_ids.reshape({1, -1}));
  for (std::int64_t i = 0; i < b.n; ++i) mask.slice(0, i, i + 1).slice(1, b.first + i, b.first + i + 1).fill_(0.0);
  return mask;
}

Tensor one_direction(const Tensor& own, const Tensor& others, const Tensor& scale, const Tensor& targets, const Tensor& mask) {
  Tensor logits = mul(matmul(own, others, {.transpose_b = true}), scale);  // (n, N)
  if (mask.defined()) logits = masked_fill(logits, mask, -std::numeric_limits<double>::infinity());
  return cross_entropy(logits, targets);
}

Tensor plain_softmax_loss(const ClipLossInputs& in, const Batch& b, Communicator& communicator) {
  const Tensor all_images = gather_rows(in.image, communicator);
  const Tensor targets = own_columns(b, in.image.device()), mask = equal_caption_mask(b), scale = exp(in.logit_scale);
  const Tensor both = add(one_direction(in.image, b.texts, scale, targets, mask), one_direction(in.text, all_images, scale, targets, mask));
  return affine(both, 0.5, 0.0);
}

Tensor plain_sigmoid_loss(const ClipLossInputs& in, const Batch& b) {
  const Tensor logits = add(mul(matmul(in.image, b.texts, {.transpose_b = true}), exp(in.logit_scale)), in.logit_bias);  // (n, N)
  const Tensor own =
      equal(own_columns(b, in.image.device()).reshape({-1, 1}), arange(b.texts.size(0)).to(in.image.device()).reshape({1, -1}));
  Tensor each = log_sigmoid(where(own, logits, neg(logits)));
  if (const Tensor mask = equal_caption_mask(b); mask.defined()) each = masked_fill(each, mask, 0.0);
  return affine(sum(each), -1.0 / static_cast<double>(b.n), 0.0);
}

// --- in tiles ---------------------------------------------------------------------------------------------------------------------------

// Statistics of the columns over the rows of all ranks.
void merge_columns(Tensor& max, Tensor& sums, Communicator& communicator) {
  const Tensor own = max.clone();
  communicator.all_reduce(max, Communicator::Op::max);
  sums.copy_(mul(sums, exp(sub(own, max))));
  communicator.all_reduce(sums, Communicator::Op::sum);
}

InfoNceOptions tile_options(const Batch& b) {
  InfoNceOptions o;
  o.offset = b.first;
  o.row_ids = b.own_ids;
  o.column_ids = b.all_ids;
  return o;
}

Tensor streamed_softmax_loss(const ClipLossInputs& in, const Batch& b, Communicator& communicator) {
  InfoNceOptions o = tile_options(b);
  if (communicator.size() > 1) {
    o.ranks.gather = [&](const Tensor& own) { return communicator.all_gather(own); };
    o.ranks.merge_columns = [&](Tensor& max, Tensor& sums) { merge_columns(max, sums, communicator); };
  }
  return info_nce(in.image, b.texts, in.logit_scale, o);
}

}  // namespace

Tensor clip_loss(const ClipLossInputs& in, const LossOptions& options, Communicator& communicator) {
  check(in.image.rank() == 2 && in.image.shape() == in.text.shape(), "clip_loss", "image and text features must have one shape (n, d)",
        {{"image", in.image}, {"text", in.text}});
  Batch b;
  b.n = in.image.size(0);
  b.first = communicator.rank() * b.n;
  if (options.equal_captions == EqualCaptions::positives) {
    check(in.caption_ids.defined() && in.caption_ids.shape() == Shape{b.n}, "clip_loss",
          "equal captions as positives need one caption id per row", {{"image", in.image}, {"caption_ids", in.caption_ids}});
    b.own_ids = in.caption_ids;
    b.all_ids = communicator.all_gather(in.caption_ids);
  }
  b.texts = gather_rows(in.text, communicator);
  if (options.kind == LossKind::softmax) {
    return options.stream ? streamed_softmax_loss(in, b, communicator) : plain_softmax_loss(in, b, communicator);
  }
  check(in.logit_bias.defined(), "clip_loss", "the sigmoid loss needs a logit bias (init_logit_bias in the model config)",
        {{"image", in.image}});
  return options.stream ? sigmoid_loss(in.image, b.texts, in.logit_scale, in.logit_bias, tile_options(b)) : plain_sigmoid_loss(in, b);
}

Tensor label_smoothing_term(const ClipLossInputs& in, Communicator& communicator) {
  const auto mean_row = [](const Tensor& x) { return mean(x, {{0}, false}); };  // (n, d) to (d)
  const Tensor own = mean(sum(mul(in.image, in.text), {{1}, false}));
  const Tensor images = sum(mul(mean_row(in.image), mean_row(gather_rows(in.text, communicator))));
  const Tensor texts = sum(mul(mean_row(in.text), mean_row(gather_rows(in.image, communicator))));
  return mul(sub(own, affine(add(images, texts), 0.5, 0.0)), exp(in.logit_scale));
}

}  // namespace twinlens
