#pragma once
// Pictures of a batch that are cropped, resized, flipped and recoloured on a card (--device-transforms). A worker decodes and draws; what
// the kernels read, the crops' pixels and their tables, lies in one run of pinned bytes, so that a batch is one copy. augment() is the
// oracle: crops, sizes and tone come out to the byte, rotation and colour to one level.

#include <memory>
#include <vector>

#include "clip/src/image/augment_plan.h"

#include "twinlens/core/tensor.h"
#include "twinlens/kernels/stream.h"

namespace twinlens {

struct PackedPictures {
  // Where things of a picture begin in `bytes`.
  struct Axis {
    std::int64_t begin = 0, taps = 0, weights = 0, count = 0, stride = 0;
  };
  struct Picture {
    std::int64_t pixels = 0, curve = 0;
    Axis horizontal, vertical;
    AugmentPlan plan;  // its tables are in `bytes`
    ResizeRows rows;
  };
  Tensor bytes;  // (n) u8, pinned
  std::vector<Picture> pictures;
  std::int64_t size = 0;     // of the results
  std::int64_t scratch = 0;  // bytes that the largest resize needs

  // Of `bytes` on the card and what the kernels need beside it.
  std::int64_t bytes_on_card() const;
};

struct PlannedPicture {
  std::shared_ptr<const Image> image;
  AugmentPlan plan;
};

PackedPictures pack_pictures(std::vector<PlannedPicture> pictures, std::int64_t size);

// Queues the kernels. `on_card` has bytes_on_card() bytes, of which the first are a copy of `bytes`; results go to pixels (B, S, S, 3) u8.
void transform_pictures(Stream& stream, const PackedPictures& packed, void* on_card, const Tensor& pixels);

}  // namespace twinlens
