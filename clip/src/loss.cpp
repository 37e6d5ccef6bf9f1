#include "twinlens/clip/loss.h"

#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// (n, N) f32: each row spreads weight 1 evenly over the columns with an equal caption.
Tensor equal_caption_targets(const Tensor& own, const Tensor& all) {
  const Tensor same = equal(own.reshape({-1, 1}), all.reshape({1, -1})).to(DType::f32);
  return div(same, sum(same, {{1}, true}));
}

Tensor one_direction(const Tensor& own, const Tensor& others, const Tensor& scale, const Tensor& targets) {
  const Tensor logits = mul(matmul(own, others, {.transpose_b = true}), scale);  // (n, N)
  return targets.dtype() == DType::i64 ? cross_entropy(logits, targets) : soft_cross_entropy(logits, targets);
}

}  // namespace

Tensor clip_loss(const ClipLossInputs& in, EqualCaptions equal_captions, Communicator& communicator) {
  check(in.image.rank() == 2 && in.image.shape() == in.text.shape(), "clip_loss", "image and text features must have one shape (n, d)",
        {{"image", in.image}, {"text", in.text}});
  const std::int64_t n = in.image.size(0);
  const Tensor all_images = gather_rows(in.image, communicator);
  const Tensor all_texts = gather_rows(in.text, communicator);
  Tensor targets;
  if (equal_captions == EqualCaptions::positives) {
    check(in.caption_ids.defined() && in.caption_ids.shape() == Shape{n}, "clip_loss", "equal captions as positives need one caption id per row",
          {{"image", in.image}, {"caption_ids", in.caption_ids}});
    targets = equal_caption_targets(in.caption_ids, communicator.all_gather(in.caption_ids));
  } else {
    std::vector<std::int64_t> own_columns;
    for (std::int64_t i = 0; i < n; ++i) own_columns.push_back(communicator.rank() * n + i);
    targets = from_vector(own_columns, {n}).to(in.image.device());
  }
  const Tensor scale = exp(in.logit_scale);
  const Tensor both = add(one_direction(in.image, all_texts, scale, targets), one_direction(in.text, all_images, scale, targets));
  return affine(both, 0.5, 0.0);
}

}  // namespace twinlens
