#pragma once
// Patch dropout: in training the image tower sees some patches of each picture only, and the rest costs nothing (FLIP; Li et al. 2023,
// arXiv:2212.00794). As open_clip's vision_cfg.patch_dropout and --force-patch-dropout: max(1, floor(n (1 - p))) of n patches stay, the
// class token always; evaluation sees all.
//
// Which ones is a pure function of (seed, step, sample): the same in any batch, chunk or rank, and in the second pass of cached features.

#include <cstdint>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

// Patches of B pictures with P each, K of which are seen: picture by picture, in rising order.
struct PatchSelection {
  Tensor rows;            // (B * K) i64, among the B * P patches of the batch
  Tensor places;          // (B * K) i64, of each in its own picture, [0, P)
  std::int64_t each = 0;  // K

  bool defined() const { return rows.defined(); }
  PatchSelection to(Device device) const;
};

// K, of P patches. `dropout` is in [0, 1).
std::int64_t patches_kept(std::int64_t patches, double dropout);

// `chosen` holds the K places of each picture, one picture after the other. Throws ShapeError when they are not in [0, patches), rising.
PatchSelection select_patches(const std::vector<std::int64_t>& chosen, std::int64_t each, std::int64_t patches);

// Draws them, each set as likely as any other: Fisher and Yates' shuffle, stopped after K. One global sample id a picture.
PatchSelection draw_patches(const std::vector<std::int64_t>& samples, std::int64_t patches, double dropout, std::uint64_t seed,
                            std::uint64_t step);

}  // namespace twinlens
