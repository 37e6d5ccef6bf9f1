#pragma once
// Position embeddings of another image size or context length, as open_clip resizes them on load (open_clip model.py resize_pos_embed).

#include "twinlens/core/tensor.h"

namespace twinlens {

// (extra + old^2, W) -> (extra + grid^2, W): the first `extra` rows stay, the grid is resized bicubically (a = -0.5) with antialiasing,
// half-pixel centres, in double precision. f32 in and out.
Tensor resize_grid_positions(const Tensor& positions, std::int64_t extra, std::int64_t grid);

// (old, W) -> (length, W), linear between half-pixel centres.
Tensor resize_text_positions(const Tensor& positions, std::int64_t length);

}  // namespace twinlens
