#include "twinlens/clip/modified_resnet.h"

#include <cmath>

#include "twinlens/core/check.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {

Tensor Downsample::operator()(const Tensor& x, const Context& context) const {
  return bn(conv(stride > 1 ? avg_pool2d(x, stride, stride) : x, context), context);
}

void Downsample::visit(Visitor& v) {
  v("0", conv);
  v("1", bn);
}

Bottleneck::Bottleneck(std::int64_t in, std::int64_t planes, int block_stride)
    : conv1(in, planes, 1, 1, 0),
      conv2(planes, planes, 3, 1, 1),
      conv3(planes, planes * 4, 1, 1, 0),
      bn1(planes),
      bn2(planes),
      bn3(planes * 4),
      stride(block_stride) {
  if (stride > 1 || in != planes * 4) downsample = Downsample{stride, Conv2d(in, planes * 4, 1, 1, 0), BatchNorm2d(planes * 4)};
}

Tensor Bottleneck::operator()(const Tensor& x, const Context& context) const {
  Tensor y = bn1(conv1(x, context), context, Activation::relu);
  y = bn2(conv2(y, context), context, Activation::relu);
  if (stride > 1) y = avg_pool2d(y, stride, stride);
  const Tensor shortcut = downsample.has_value() ? (*downsample)(x, context) : x;
  return bn3(conv3(y, context), context, Activation::relu, shortcut);
}

void Bottleneck::visit(Visitor& v) {
  v("conv1", conv1);
  v("bn1", bn1);
  v("conv2", conv2);
  v("bn2", bn2);
  v("conv3", conv3);
  v("bn3", bn3);
  v("downsample", downsample);
}

AttentionPool2d::AttentionPool2d(int grid, std::int64_t channels, int head_count, std::int64_t embed)
    : positional_embedding(Shape{grid * grid + 1, channels}),
      k_proj(channels, channels),
      q_proj(channels, channels),
      v_proj(channels, channels),
      c_proj(channels, embed),
      heads(head_count) {}

Tensor AttentionPool2d::operator()(const Tensor& x, const Context& context) const {
  const std::int64_t b = x.size(0), c = x.size(3), hw = x.size(1) * x.size(2), t = hw + 1;
  check(positional_embedding.value.size(0) == t, "attnpool", "the image size does not fit the positions",
        {{"x", x}, {"positional_embedding", positional_embedding.value}});
  const Tensor tokens = x.reshape({b, hw, c}).to(DType::f32);
  const Tensor with_mean = concat({mean(tokens, {{1}, true}), tokens}, 1);             // (B, T, C)
  const Tensor rows = add(with_mean, positional_embedding.value).reshape({b * t, c});  // (B * T, C)
  const SequenceOffsets offsets = equal_offsets(b, t, x.device());
  AttentionOptions options;
  options.heads = heads;
  options.query_offsets = equal_offsets(b, 1, x.device());
  options.key_offsets = offsets;
  const Tensor in = rows.to(context.activation_dtype());
  const Tensor query = index_select(in, 0, offsets.starts());
  const Tensor pooled = attention(q_proj(query, context), k_proj(in, context), v_proj(in, context), options);
  return c_proj(pooled, context).to(DType::f32);
}

void AttentionPool2d::visit(Visitor& v) {
  v("positional_embedding", positional_embedding);
  v("k_proj", k_proj);
  v("q_proj", q_proj);
  v("v_proj", v_proj);
  v("c_proj", c_proj);
}

namespace {

std::vector<Bottleneck> stage(std::int64_t& in, std::int64_t planes, int blocks, int stride) {
  std::vector<Bottleneck> out;
  for (int i = 0; i < blocks; ++i) {
    out.emplace_back(in, planes, i == 0 ? stride : 1);
    in = planes * 4;
  }
  return out;
}

}  // namespace

ModifiedResNet::ModifiedResNet(const ModelConfig& c)
    : conv1(3, c.vision.width / 2, 3, 2, 1),
      conv2(c.vision.width / 2, c.vision.width / 2, 3, 1, 1),
      conv3(c.vision.width / 2, c.vision.width, 3, 1, 1),
      bn1(c.vision.width / 2),
      bn2(c.vision.width / 2),
      bn3(c.vision.width),
      mean(c.preprocess.mean),
      std(c.preprocess.std) {
  std::int64_t in = c.vision.width;
  const std::int64_t w = c.vision.width;
  layer1 = stage(in, w, c.vision.layers[0], 1);
  layer2 = stage(in, 2 * w, c.vision.layers[1], 2);
  layer3 = stage(in, 4 * w, c.vision.layers[2], 2);
  layer4 = stage(in, 8 * w, c.vision.layers[3], 2);
  attnpool = AttentionPool2d(c.vision.grid(), 32 * w, c.vision.heads(), c.embed_dim);
}

void ModifiedResNet::initialize(const Initializer& init, const std::string& name) {
  init.conv(conv1, name + ".conv1");
  init.conv(conv2, name + ".conv2");
  init.conv(conv3, name + ".conv3");
  int number = 1;
  for (std::vector<Bottleneck>* layer : {&layer1, &layer2, &layer3, &layer4}) {
    for (std::size_t i = 0; i < layer->size(); ++i) {
      Bottleneck& b = (*layer)[i];
      const std::string at = name + ".layer" + std::to_string(number) + "." + std::to_string(i);
      init.conv(b.conv1, at + ".conv1");
      init.conv(b.conv2, at + ".conv2");
      init.conv(b.conv3, at + ".conv3");
      if (b.downsample.has_value()) init.conv(b.downsample->conv, at + ".downsample.0");
      init.constant(b.bn3.weight, 0.0);
    }
    ++number;
  }
  const double std_dev = 1.0 / std::sqrt(static_cast<double>(attnpool.positional_embedding.value.size(1)));
  init.normal(attnpool.positional_embedding, name + ".attnpool.positional_embedding", std_dev);
  const std::pair<Linear*, const char*> projections[] = {
      {&attnpool.q_proj, "q_proj"}, {&attnpool.k_proj, "k_proj"}, {&attnpool.v_proj, "v_proj"}, {&attnpool.c_proj, "c_proj"}};
  for (const auto& [layer, label] : projections) {
    init.linear(*layer, name + ".attnpool." + label);
    init.normal(layer->weight, name + ".attnpool." + label + ".weight", std_dev);
  }
}

Tensor ModifiedResNet::operator()(const Tensor& images, const Context& given) const {
  const Scope scope("visual");
  Context context = given;
  const auto enter_group = [&](int group) { context.training = given.training && group >= frozen_statistics; };
  enter_group(0);
  PatchifyOptions pixels;  // 1 x 1 patches: normalised pixels as rows, which is NHWC
  pixels.patch = 1;
  std::copy(mean.begin(), mean.end(), pixels.mean);
  std::copy(std.begin(), std.end(), pixels.std);
  pixels.out = context.activation_dtype();
  Tensor x = patchify(images, pixels).reshape(images.shape());  // (B, S, S, 3)
  x = bn1(conv1(x, context), context, Activation::relu);
  x = bn2(conv2(x, context), context, Activation::relu);
  x = bn3(conv3(x, context), context, Activation::relu);
  x = avg_pool2d(x, 2, 2);
  int number = 1;
  for (const std::vector<Bottleneck>* layer : {&layer1, &layer2, &layer3, &layer4}) {
    enter_group(number);
    const Scope layer_scope("layer" + std::to_string(number++));
    for (const Bottleneck& block : *layer) x = block(x, context);
  }
  return attnpool(x, context);
}

void ModifiedResNet::visit(Visitor& v) {
  v("conv1", conv1);
  v("bn1", bn1);
  v("conv2", conv2);
  v("bn2", bn2);
  v("conv3", conv3);
  v("bn3", bn3);
  v("layer1", layer1);
  v("layer2", layer2);
  v("layer3", layer3);
  v("layer4", layer4);
  v("attnpool", attnpool);
}

}  // namespace twinlens
