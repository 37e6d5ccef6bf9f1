#include "twinlens/clip/model.h"

#include <cmath>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"

namespace twinlens {
namespace {

constexpr double kMaxLogitScale = 4.6051701859880918;  // ln 100

std::variant<VisionTransformer, ModifiedResNet> make_image_tower(const ModelConfig& config, const Initializer& init) {
  if (config.vision.is_resnet()) {
    ModifiedResNet tower(config);
    tower.initialize(init, "visual");
    return tower;
  }
  VisionTransformer tower(config);
  tower.initialize(init, "visual");
  return tower;
}

}  // namespace

Tensor ImageTower::operator()(const Tensor& images, const Context& context, const PatchSelection& patches) const {
  check(images.rank() == 4 && images.size(3) == 3, "visual", "images must be (B, S, S, 3), channels last", {{"images", images}});
  if (const auto* vit = std::get_if<VisionTransformer>(&body)) return (*vit)(images, context, patches);
  check(!patches.defined(), "visual", "a ResNet has no patches to choose from", {{"images", images}});
  return std::get<ModifiedResNet>(body)(images, context);
}

void ImageTower::visit(Visitor& v) {
  std::visit([&](auto& tower) { tower.visit(v); }, body);
}

Clip::Clip(const ModelConfig& model_config, std::uint64_t seed) : config(model_config), logit_scale(Shape{}) {
  config.validate();
  const Initializer init{seed};
  visual.body = make_image_tower(config, init);
  text = TextTower(config);
  text.initialize(init);
  init.constant(logit_scale, config.init_logit_scale);
  if (config.init_logit_bias.has_value()) {
    logit_bias = Parameter(Shape{});
    init.constant(logit_bias, *config.init_logit_bias);
  }
}

Tensor Clip::encode_image(const Tensor& images, const Context& context, const PatchSelection& patches) const {
  return l2_normalize(visual(images, context, patches));
}

Tensor Clip::encode_text(const TokenBatch& captions, const Context& context) const { return l2_normalize(text(captions, context)); }

double Clip::logit_scale_value() const { return std::exp(static_cast<double>(logit_scale.value.item())); }

void Clip::clamp_logit_scale() {
  const NoGrad guard;
  logit_scale.value.copy_(clamp(logit_scale.value, 0.0, kMaxLogitScale));
}

void Clip::visit(Visitor& v) {
  text.visit(v);
  v("logit_scale", logit_scale);
  v("logit_bias", logit_bias);
  v("visual", visual);
}

void move_to(Clip& model, Device device) {
  const NoGrad guard;
  const Collector all = collect(model);
  for (const NamedParameter& p : all.parameters) {
    const bool wants = p.parameter->value.requires_grad();
    p.parameter->value = p.parameter->value.to(device);
    p.parameter->value.set_requires_grad(wants);
  }
  for (const NamedBuffer& b : all.buffers) *b.tensor = b.tensor->to(device);
}

}  // namespace twinlens
