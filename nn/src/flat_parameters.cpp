#include "twinlens/nn/flat_parameters.h"

#include <cmath>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

constexpr std::int64_t kAlignment = 64;  // elements: 256 bytes of f32

std::int64_t aligned(std::int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

bool has_weight_decay(const std::string& name, const Tensor& value) {
  return value.rank() >= 2 && !ends_with(name, "positional_embedding") && !ends_with(name, "class_embedding") &&
         !ends_with(name, "cls_emb");
}

FlatParameters::FlatParameters(const Collector& model, bool with_shadow, bool with_gradients) {
  std::int64_t n = 0;
  for (const NamedParameter& p : model.parameters) {
    const Tensor& value = p.parameter->value;
    segments_.push_back({p.name, n, value.count(), 1.0F, has_weight_decay(p.name, value), !value.requires_grad()});
    n += aligned(value.count());
  }
  const Device device = model.parameters.empty() ? kCpu : model.parameters.front().parameter->value.device();
  const NoGrad guard;
  values = zeros({n}, DType::f32, device);
  if (with_gradients) gradients = zeros({n}, DType::f32, device);
  moment1 = zeros({n}, DType::f32, device);
  moment2 = zeros({n}, DType::f32, device);
  if (with_shadow) shadow = zeros({n}, DType::bf16, device);
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const Segment& segment = segments_[i];
    Parameter& p = *model.parameters[i].parameter;
    const Shape shape = p.value.shape();
    const auto part = [&](const Tensor& block) { return block.slice(0, segment.offset, segment.offset + segment.size).reshape(shape); };
    Tensor value = part(values);
    value.copy_(p.value);
    value.set_requires_grad(!segment.frozen);
    if (!segment.frozen && with_gradients) value.set_grad(part(gradients));
    leaves_.push_back(segment.frozen ? Tensor{} : value);
    p.value = value;
    if (with_shadow) {
      p.shadow = part(shadow);
      share_gradient(p.shadow, p.value);
    }
  }
  if (with_shadow) refresh_shadow();
  upload_table();
  release_cached_memory(device);  // what the values lay in before: blocks of sizes that no step asks for
}

void FlatParameters::set_lr_factors(const std::function<float(const std::string&)>& factor) {
  for (Segment& segment : segments_) segment.lr_factor = factor(segment.name);
  upload_table();
}

void FlatParameters::upload_table() {
  std::vector<OptimizerSegment> rows;
  for (const Segment& s : segments_) rows.push_back({s.offset, s.size, s.lr_factor, s.decay ? 1.0F : 0.0F, s.frozen ? 1 : 0, 0});
  for (std::size_t i = 0; i < segments_.size(); ++i) {  // segment_alone
    rows.push_back(rows[i]);
    rows.back().offset = 0;
  }
  const auto bytes = static_cast<std::int64_t>(rows.size() * sizeof(OptimizerSegment));
  table_ = empty({bytes}, DType::u8, values.device());
  copy_bytes(current_stream(values.device()), table_.raw(), values.device(), rows.data(), kCpu, static_cast<std::size_t>(bytes));
}

const OptimizerSegment* FlatParameters::segment_table() const { return static_cast<const OptimizerSegment*>(table_.raw()); }

void FlatParameters::zero_gradients() {
  settle_gradients();
  gradients.fill_(0.0);
}

void FlatParameters::forget_gradients() {
  for (const Tensor& leaf : leaves_) {
    if (leaf.defined()) forget_grad(leaf);
  }
}

void FlatParameters::settle_gradients() const {
  for (const Tensor& leaf : leaves_) {
    if (leaf.defined()) settle_grad(leaf);
  }
}

void FlatParameters::refresh_shadow() {
  if (shadow.defined()) shadow.copy_(values);
}

double FlatParameters::gradient_norm() const {
  settle_gradients();
  return static_cast<double>(norm2(gradients).item());
}

double FlatParameters::gradient_norm(const std::function<bool(const std::string&)>& wanted) const {
  settle_gradients();
  double squares = 0.0;
  for (std::size_t i = 0; i < segments_.size();) {
    if (!wanted(segments_[i].name)) {
      ++i;
      continue;
    }
    const std::int64_t begin = segments_[i].offset;  // neighbours are taken together
    std::int64_t end = begin;
    for (; i < segments_.size() && wanted(segments_[i].name); ++i) end = segments_[i].offset + segments_[i].size;
    squares += std::pow(static_cast<double>(norm2(gradients.slice(0, begin, end)).item()), 2);
  }
  return std::sqrt(squares);
}

}  // namespace twinlens
