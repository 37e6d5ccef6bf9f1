#pragma once
// CLIP's ResNet image tower (OpenAI clip/model.py ModifiedResNet): a three-convolution stem, average pooling instead of strided
// convolutions, and attention pooling with the mean token as the only query. NHWC activations.

#include <optional>
#include <vector>

#include "twinlens/clip/config.h"
#include "twinlens/nn/init.h"
#include "twinlens/nn/layers.h"

namespace twinlens {

struct Downsample {
  int stride = 1;
  Conv2d conv;     // checkpoint name "0"
  BatchNorm2d bn;  // checkpoint name "1"
  Tensor operator()(const Tensor& x, const Context& context) const;
  void visit(Visitor& v);
};

struct Bottleneck {
  Conv2d conv1, conv2, conv3;
  BatchNorm2d bn1, bn2, bn3;
  std::optional<Downsample> downsample;
  int stride = 1;

  Bottleneck() = default;
  Bottleneck(std::int64_t in, std::int64_t planes, int block_stride);
  Tensor operator()(const Tensor& x, const Context& context) const;  // (B, H, W, in) -> (B, H/stride, W/stride, 4 planes)
  void visit(Visitor& v);
};

struct AttentionPool2d {
  Parameter positional_embedding;  // (HW + 1, C)
  Linear k_proj, q_proj, v_proj, c_proj;
  int heads = 1;

  AttentionPool2d() = default;
  AttentionPool2d(int grid, std::int64_t channels, int head_count, std::int64_t embed);
  Tensor operator()(const Tensor& x, const Context& context) const;  // (B, H, W, C) -> (B, E) f32
  void visit(Visitor& v);
};

struct ModifiedResNet {
  Conv2d conv1, conv2, conv3;
  BatchNorm2d bn1, bn2, bn3;
  std::vector<Bottleneck> layer1, layer2, layer3, layer4;
  AttentionPool2d attnpool;
  std::array<float, 3> mean{0, 0, 0}, std{1, 1, 1};
  int frozen_statistics = 0;  // the batch norms of the first so many groups (layer_groups.h) use their running ones in training, too

  ModifiedResNet() = default;
  explicit ModifiedResNet(const ModelConfig& config);
  void initialize(const Initializer& init, const std::string& name);
  // images (B, S, S, 3) u8, or f32 normalised -> (B, E) f32, not normalised
  Tensor operator()(const Tensor& images, const Context& context) const;
  void visit(Visitor& v);
};

}  // namespace twinlens
