#pragma once
// Clip: the dual encoder. Parameter names are OpenAI's and open_clip's, so state_dict() is a checkpoint.
//
// A Clip is never moved (flat parameters and optimizers point into it).
//
// Threads: on the CPU several threads may encode with one const Clip while none writes to it and `training` is false; NoGrad and the tape
// belong to a thread. set_thread_count() is of the process: every such call takes that many threads (kernels/parallel.h).

#include <memory>
#include <variant>

#include "twinlens/clip/modified_resnet.h"
#include "twinlens/clip/text_tower.h"
#include "twinlens/clip/vision_transformer.h"
#include "twinlens/nn/module.h"

namespace twinlens {

struct ImageTower {
  std::variant<VisionTransformer, ModifiedResNet> body;
  Tensor operator()(const Tensor& images, const Context& context, const PatchSelection& patches = {}) const;
  void visit(Visitor& v);
};

class Clip {
 public:
  // Initialised by OpenAI's rules from the seed.
  Clip(const ModelConfig& config, std::uint64_t seed);
  Clip(const Clip&) = delete;
  Clip& operator=(const Clip&) = delete;

  // Unit-length features (B, E), f32. images (B, S, S, 3): u8, normalised inside with the model's mean and std, or f32 that is normalised
  // already.
  Tensor encode_image(const Tensor& images, const Context& context = {}, const PatchSelection& patches = {}) const;
  Tensor encode_text(const TokenBatch& captions, const Context& context = {}) const;  // B captions -> (B, E)
  double logit_scale_value() const;                                                   // exp of the parameter, read back
  // Clamps logit_scale to [0, ln 100]; call after every optimizer step.
  void clamp_logit_scale();
  void visit(Visitor& v);

  ModelConfig config;
  ImageTower visual;
  TextTower text;
  Parameter logit_scale;  // rank 0, the logarithm
  Parameter logit_bias;   // rank 0; absent unless the config has init_logit_bias (sigmoid loss)
};

// Moves every parameter and buffer.
void move_to(Clip& model, Device device);

}  // namespace twinlens
