#pragma once
// Augmentation of training pictures. Every random number is a function of (seed, epoch, sample id): the same picture whatever thread,
// batch or number of ranks.

#include <array>
#include <cstdint>

#include "twinlens/clip/image.h"

namespace twinlens {

struct AugmentOptions {
  std::array<double, 2> scale{0.9, 1.0};              // area of the random crop, as a share
  std::array<double, 2> ratio{3.0 / 4.0, 4.0 / 3.0};  // its width over its height, drawn log-uniformly
  Filter filter = Filter::bicubic;
  double flip_probability = 0.0;
  double jitter_probability = 0.0;
  double brightness = 0.0, contrast = 0.0, saturation = 0.0;  // factors drawn from [max(0, 1 - x), 1 + x]
  double hue = 0.0;                                           // turn drawn from [-x, x], 1 a full circle
  double gray_probability = 0.0;
  double gamma = 0.0;               // exponent drawn log-uniformly from [e^-x, e^x]
  double invert_probability = 0.0;  // white for black
  double sharpness_probability = 0.0;
  std::array<double, 2> sharpness{1.0, 1.0};  // factor: 0 blurs (3 x 3 mean), 1 changes nothing, above sharpens
  double rotate_degrees = 0.0;                // drawn from [-x, x]
  double translate = 0.0;                     // share of the side, drawn from [-x, x] in both directions
  std::array<double, 2> zoom{1.0, 1.0};
};

// RandomResizedCrop as torchvision (ten tries, then the centre at the nearest ratio), flip, then rotation, shift and zoom around the
// centre on white, then colour changes in the order brightness, contrast, saturation, hue, gray, then gamma, inversion and sharpness.
// (size, size). Of a picture decoded at a smaller scale the same crop is taken as of the full one; the filter reads a little beyond it.
// Throws ConfigError for options out of range.
Image augment(const Image& image, std::int64_t size, const AugmentOptions& options, std::uint64_t seed, std::uint64_t epoch,
              std::int64_t sample);

// The scale at which the crop that augment takes of a width x height picture has the size: DecodeOptions::least_scale.
double least_scale(std::int64_t width, std::int64_t height, std::int64_t size, const AugmentOptions& options, std::uint64_t seed,
                   std::uint64_t epoch, std::int64_t sample);

// The crop that augment takes of a width x height picture.
Rect random_crop(std::int64_t width, std::int64_t height, const AugmentOptions& options, std::uint64_t seed, std::uint64_t epoch,
                 std::int64_t sample);

}  // namespace twinlens
