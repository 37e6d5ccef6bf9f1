#include "twinlens/nn/flat_parameters.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <unordered_map>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {
namespace {

constexpr std::int64_t kAlignment = 64;  // elements: 256 bytes of f32

std::int64_t aligned(std::int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

Tensor part(const Tensor& block, const Segment& segment, const Shape& shape) {
  return block.slice(0, segment.offset, segment.offset + segment.size).reshape(shape);
}

// From the first to behind the last element of a view that has some.
std::int64_t bytes_spanned(const Tensor& x) {
  std::int64_t last = 0;
  for (int d = 0; d < x.rank(); ++d) last += (x.size(d) - 1) * x.strides()[d];
  return (last + 1) * size_of(x.dtype());
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

bool has_weight_decay(const std::string& name, const Tensor& value) {
  const bool of_tokens = ends_with(name, "positional_embedding") && !ends_with(name, "attnpool.positional_embedding");
  return value.rank() >= 2 && !of_tokens && !ends_with(name, "class_embedding") && !ends_with(name, "cls_emb");
}

FlatParameters::FlatParameters(const Collector& model, bool with_shadow, bool with_gradients) {
  const std::vector<std::size_t> segment_of = lay_out(model);
  const std::int64_t n = segments_.empty() ? 0 : segments_.back().offset + aligned(segments_.back().size);
  const Device device = model.parameters.empty() ? kCpu : model.parameters.front().parameter->value.device();
  const NoGrad guard;
  values = zeros({n}, DType::f32, device);
  if (with_gradients) gradients = zeros({n}, DType::f32, device);
  moment1 = zeros({n}, DType::f32, device);
  moment2 = zeros({n}, DType::f32, device);
  if (with_shadow) shadow = zeros({n}, DType::bf16, device);
  for (std::size_t i = 0; i < model.parameters.size(); ++i) {
    Parameter& p = *model.parameters[i].parameter;
    const std::size_t s = segment_of[i];
    if (s == parts_.size()) {  // the first of its names
      const Segment& segment = segments_[s];
      Tensor value = apart(part(values, segment, p.value.shape()));
      value.copy_(p.value);
      value.set_requires_grad(!segment.frozen);
      if (!segment.frozen && with_gradients) value.set_grad(part(gradients, segment, value.shape()));
      leaves_.push_back(segment.frozen ? Tensor{} : value);
      if (with_shadow) {
        shadows_.push_back(apart(part(shadow, segment, value.shape())));
        share_gradient(shadows_.back(), value);
      }
      parts_.push_back(std::move(value));
    }
    p.value = parts_[s];
    p.shadow = with_shadow ? shadows_[s] : Tensor{};  // (that of round_weights() would not follow)
  }
  if (with_shadow) refresh_shadow();
  upload_table();
  release_cached_memory(device);  // what the values lay in before: blocks of sizes that no step asks for
}

// A segment for each tensor, and for each parameter which is its: one tensor of several names has one.
std::vector<std::size_t> FlatParameters::lay_out(const Collector& model) {
  std::unordered_map<const TensorState*, std::size_t> known;
  std::unordered_map<std::string, const Tensor*> named;
  std::vector<std::size_t> segment_of;
  std::vector<const NamedParameter*> by_address;
  std::int64_t n = 0;
  for (const NamedParameter& p : model.parameters) {
    const Tensor& value = p.parameter->value;
    const Tensor& first = *named.try_emplace(p.name, &value).first->second;
    if (first.state() != value.state()) {
      throw ConfigError("FlatParameters: two tensors are called '" + p.name + "', " + describe(first) + " and " + describe(value) +
                        "; give each a name of its own in visit()");
    }
    const auto [it, is_new] = known.try_emplace(value.state().get(), segments_.size());
    segment_of.push_back(it->second);
    if (!is_new) continue;
    segments_.push_back({p.name, n, value.count(), 1.0F, has_weight_decay(p.name, value), !value.requires_grad()});
    n += aligned(value.count());
    if (value.count() > 0) by_address.push_back(&p);
  }
  // What only shares its elements would be torn apart.
  const auto begin = [](const NamedParameter* p) { return static_cast<const char*>(p->parameter->value.raw()); };
  std::stable_sort(by_address.begin(), by_address.end(), [&](const auto* a, const auto* b) { return std::less<>()(begin(a), begin(b)); });
  for (std::size_t i = 1; i < by_address.size(); ++i) {
    const NamedParameter &a = *by_address[i - 1], &b = *by_address[i];
    check(!std::less<>()(begin(&b), begin(&a) + bytes_spanned(a.parameter->value)), "FlatParameters",
          a.name + " and " + b.name + " share elements but are two tensors; tie them by one Tensor under both names, or clone one",
          {{"first", a.parameter->value}, {"second", b.parameter->value}});
  }
  return segment_of;
}

void FlatParameters::follow_freezing() {
  bool changed = false;
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    Segment& segment = segments_[i];
    Tensor& value = parts_[i];
    if (value.requires_grad() != segment.frozen) continue;
    check(!segment.frozen || gradients.defined(), "FlatParameters",
          segment.name + " was frozen when it was laid flat, and these parameters have no gradient block; let it want gradients before",
          {{"value", value}});
    const NoGrad guard;
    changed = true;
    segment.frozen = !segment.frozen;
    leaves_[i] = segment.frozen ? Tensor{} : value;
    if (segment.frozen) on_grad_ready(value, {});
    const Tensor came = segment.frozen ? Tensor{} : value.grad();  // before anybody looked
    value.set_grad(Tensor{});
    if (!gradients.defined()) continue;
    Tensor own = part(gradients, segment, value.shape());
    own.fill_(0.0);
    if (came.defined()) own.copy_(came);
    if (!segment.frozen) value.set_grad(own);
  }
  if (changed) upload_table();
}

void FlatParameters::mark_written() const {
  values.mark_written();
  for (const Tensor& value : parts_) value.mark_written();
  if (!shadow.defined()) return;
  shadow.mark_written();
  for (const Tensor& rounded : shadows_) rounded.mark_written();
}

void FlatParameters::mark_written(std::size_t i) const {
  parts_[i].mark_written();
  if (shadow.defined()) shadows_[i].mark_written();
}

void FlatParameters::set_lr_factors(const std::function<float(const std::string&)>& factor) {
  if (!factor) throw ConfigError("set_lr_factors: the function is empty; its argument; give one of a parameter's name");
  std::vector<float> factors;
  for (const Segment& segment : segments_) {
    factors.push_back(factor(segment.name));
    if (!(std::isfinite(factors.back()) && factors.back() >= 0.0F)) {
      throw ConfigError("set_lr_factors: the factor of '" + segment.name + "' is " + std::to_string(factors.back()) +
                        "; its argument; give a number of at least 0");
    }
  }
  for (std::size_t i = 0; i < segments_.size(); ++i) segments_[i].lr_factor = factors[i];
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

void FlatParameters::need_gradients(const char* op) const {
  check(gradients.defined(), op, "these parameters have no gradient block; AdamWInBackward updates them, or build them with one",
        {{"values", values}});
}

bool FlatParameters::has_its_part(std::size_t i) const {
  const Tensor& gradient = leaves_[i].grad();
  return gradient.defined() && gradient.raw() == static_cast<const char*>(gradients.raw()) + segments_[i].offset * size_of(DType::f32);
}

// set_grad() may have taken a gradient out of the block.
void FlatParameters::bind_gradients() {
  const NoGrad guard;
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    if (leaves_[i].defined() && !has_its_part(i)) leaves_[i].set_grad(part(gradients, segments_[i], leaves_[i].shape()));
  }
}

void FlatParameters::zero_gradients() {
  need_gradients("zero_gradients");
  follow_freezing();
  bind_gradients();
  settle_gradients();
  gradients.fill_(0.0);
}

void FlatParameters::forget_gradients() {
  follow_freezing();
  if (gradients.defined()) bind_gradients();
  for (const Tensor& leaf : leaves_) {
    if (leaf.defined()) forget_grad(leaf);
  }
}

void FlatParameters::settle_gradients() const {
  need_gradients("settle_gradients");
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    const Tensor& leaf = leaves_[i];
    if (!leaf.defined()) continue;
    if (leaf.requires_grad() && !has_its_part(i)) {
      throw AutogradError("FlatParameters: the gradient of '" + segments_[i].name +
                          "' does not lie in the gradient block, whose step it would miss; set_grad() was called on it; call "
                          "zero_gradients() or forget_gradients() after set_grad() and before backward()");
    }
    settle_grad(leaf);
  }
}

void FlatParameters::refresh_shadow() {
  if (!shadow.defined()) return;
  shadow.copy_(values);
  for (const Tensor& rounded : shadows_) rounded.mark_written();
}

double FlatParameters::gradient_norm() const {
  need_gradients("gradient_norm");
  settle_gradients();
  return static_cast<double>(norm2(gradients).item());
}

double FlatParameters::gradient_norm(const std::function<bool(const std::string&)>& wanted) const {
  need_gradients("gradient_norm");
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
