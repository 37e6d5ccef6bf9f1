#include "twinlens/clip/loss.h"

#include <limits>
#include <vector>

#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// (n, N) bool: columns of other rows with an equal caption.
Tensor equal_caption_mask(const Tensor& own, const Tensor& all, const std::vector<std::int64_t>& own_columns) {
  Tensor mask = equal(own.reshape({-1, 1}), all.reshape({1, -1}));
  for (std::size_t i = 0; i < own_columns.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    mask.slice(0, row, row + 1).slice(1, own_columns[i], own_columns[i] + 1).fill_(0.0);
  }
  return mask;
}

Tensor one_direction(const Tensor& own, const Tensor& others, const Tensor& scale, const Tensor& targets, const Tensor& mask) {
  Tensor logits = mul(matmul(own, others, {.transpose_b = true}), scale);  // (n, N)
  if (mask.defined()) logits = masked_fill(logits, mask, -std::numeric_limits<double>::infinity());
  return cross_entropy(logits, targets);
}

}  // namespace

Tensor clip_loss(const ClipLossInputs& in, EqualCaptions equal_captions, Communicator& communicator) {
  check(in.image.rank() == 2 && in.image.shape() == in.text.shape(), "clip_loss", "image and text features must have one shape (n, d)",
        {{"image", in.image}, {"text", in.text}});
  const std::int64_t n = in.image.size(0);
  const Tensor all_images = gather_rows(in.image, communicator);
  const Tensor all_texts = gather_rows(in.text, communicator);
  std::vector<std::int64_t> own_columns;
  for (std::int64_t i = 0; i < n; ++i) own_columns.push_back(communicator.rank() * n + i);
  const Tensor targets = from_vector(own_columns, {n}).to(in.image.device());
  Tensor mask;
  if (equal_captions == EqualCaptions::positives) {
    check(in.caption_ids.defined() && in.caption_ids.shape() == Shape{n}, "clip_loss",
          "equal captions as positives need one caption id per row", {{"image", in.image}, {"caption_ids", in.caption_ids}});
    mask = equal_caption_mask(in.caption_ids, communicator.all_gather(in.caption_ids), own_columns);
  }
  const Tensor scale = exp(in.logit_scale);
  const Tensor both =
      add(one_direction(in.image, all_texts, scale, targets, mask), one_direction(in.text, all_images, scale, targets, mask));
  return affine(both, 0.5, 0.0);
}

Tensor label_smoothing_term(const ClipLossInputs& in, Communicator& communicator) {
  const auto mean_row = [](const Tensor& x) { return mean(x, {{0}, false}); };  // (n, d) to (d)
  const Tensor own = mean(sum(mul(in.image, in.text), {{1}, false}));
  const Tensor images = sum(mul(mean_row(in.image), mean_row(gather_rows(in.text, communicator))));
  const Tensor texts = sum(mul(mean_row(in.text), mean_row(gather_rows(in.image, communicator))));
  return mul(sub(own, affine(add(images, texts), 0.5, 0.0)), exp(in.logit_scale));
}

}  // namespace twinlens
