#include "twinlens/nn/optimizer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/accumulate.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

float* floats(const Tensor& x) { return static_cast<float*>(x.raw()); }

bf16* shadow_of(const FlatParameters& parameters) {
  return parameters.shadow.defined() ? static_cast<bf16*>(parameters.shadow.raw()) : nullptr;
}

// What makes every value NaN, or runs away: torch.optim refuses it, too. (Not a number fails each comparison.)
void check_options(const char* op, const AdamWOptions& o) {
  const auto must = [&](bool is_so, const char* name, double value, const char* remedy) {
    if (!is_so) throw ConfigError(std::string(op) + ": " + name + " is " + std::to_string(value) + "; AdamWOptions; give " + remedy);
  };
  must(o.beta1 >= 0.0 && o.beta1 < 1.0, "beta1", o.beta1, "a number from 0 to below 1");
  must(o.beta2 >= 0.0 && o.beta2 < 1.0, "beta2", o.beta2, "a number from 0 to below 1");
  must(o.eps >= 0.0, "eps", o.eps, "a number of at least 0");
  must(o.weight_decay >= 0.0, "weight_decay", o.weight_decay, "a number of at least 0");
}

// Of a block that lies on the host.
void check_step(const StepBlock& step) {
  const auto must = [](bool is_so, const char* name, double value, const char* remedy) {
    if (!is_so) throw ConfigError(std::string("optimizer step: ") + name + " is " + std::to_string(value) + "; StepBlock; give " + remedy);
  };
  must(step.learning_rate >= 0.0F, "learning_rate", step.learning_rate, "a number of at least 0");
  must(step.loss_scale > 0.0F, "loss_scale", step.loss_scale, "a number above 0");
  must(step.left_out >= 0 && static_cast<std::uint64_t>(step.left_out) <= step.step, "left_out", static_cast<double>(step.left_out),
       "no more than the steps before this one");
}

void settle(const char* op, FlatParameters& p) {
  p.need_gradients(op);
  p.follow_freezing();
  p.settle_gradients();
}

// The kernels of one step, given where the step block lies on their device.
void adamw_at(FlatParameters& p, const StepBlock* step, const AdamWOptions& options) {
  check_options("adamw_step", options);
  settle("adamw_step", p);
  run(current_stream(p.values.device()),
      AdamW{p.segment_table(), p.segment_count(), p.values.count(), floats(p.values), floats(p.gradients), floats(p.moment1),
            floats(p.moment2), shadow_of(p), options.beta1, options.beta2, options.eps, options.weight_decay, step});
  p.mark_written();
}

void sgd_at(FlatParameters& p, const StepBlock* step, const SgdOptions& options) {
  if (!(options.momentum >= 0.0 && options.weight_decay >= 0.0)) {
    throw ConfigError("sgd_step: momentum is " + std::to_string(options.momentum) + " and weight_decay " +
                      std::to_string(options.weight_decay) + "; SgdOptions; give numbers of at least 0");
  }
  if (options.nesterov && options.momentum == 0.0)
    throw ConfigError("sgd_step: nesterov without momentum; SgdOptions; give a momentum above 0");
  settle("sgd_step", p);
  run(current_stream(p.values.device()),
      SgdMomentum{p.segment_table(), p.segment_count(), p.values.count(), floats(p.values), floats(p.gradients), floats(p.moment1),
                  shadow_of(p), options.momentum, options.weight_decay, options.nesterov, step});
  p.mark_written();
}

// Calls f with the block where the kernels can read it; a copy on a card lives until the work that is queued has read it.
template <class F>
void with_step_block(const FlatParameters& p, const StepBlock& step, F&& f) {
  check_step(step);
  if (p.values.device().is_cpu()) return f(&step);
  const Tensor on_card = step_block_on(step, p.values.device());
  f(static_cast<const StepBlock*>(on_card.raw()));
}

StepBlock* block_in(const char* op, const FlatParameters& p, const Tensor& step) {
  check_same_device(op, {{"parameters", p.values}, {"step block", step}});
  check(step.count() == static_cast<std::int64_t>(sizeof(StepBlock)), op, "needs a step block from step_block_on", {{"step block", step}});
  return static_cast<StepBlock*>(step.raw());
}

}  // namespace

void adamw_step(FlatParameters& p, const StepBlock& step, const AdamWOptions& options) {
  with_step_block(p, step, [&](const StepBlock* block) { adamw_at(p, block, options); });
}
void adamw_step(FlatParameters& p, const Tensor& step, const AdamWOptions& options) {
  adamw_at(p, block_in("adamw_step", p, step), options);
}

void sgd_step(FlatParameters& p, const StepBlock& step, const SgdOptions& options) {
  with_step_block(p, step, [&](const StepBlock* block) { sgd_at(p, block, options); });
}
void sgd_step(FlatParameters& p, const Tensor& step, const SgdOptions& options) { sgd_at(p, block_in("sgd_step", p, step), options); }

AdamWInBackward::AdamWInBackward(FlatParameters& parameters, const StepBlock* step, const AdamWOptions& options, bool with_norms)
    : p_(parameters),
      step_(step),
      options_(options),
      with_norms_(with_norms),
      norms_(parameters.segments().size()),
      updated_(parameters.segments().size()) {
  check_options("AdamWInBackward", options);
  if (step == nullptr) throw ConfigError("AdamWInBackward: no step block; its arguments; give one that lives as long");
  check(!p_.gradients.defined(), "AdamWInBackward", "the parameters have a gradient block; build them without",
        {{"gradients", p_.gradients}});
  for (std::size_t i = 0; i < p_.leaves().size(); ++i) {
    if (!p_.leaves()[i].defined()) continue;
    on_grad_ready(p_.leaves()[i], [this, i](const Tensor& leaf) {
      if (!leaf.grad().defined()) return;
      update(i, dense(leaf.grad()));
      leaf.set_grad(Tensor{});
    });
  }
}

AdamWInBackward::~AdamWInBackward() {
  for (const Tensor& leaf : p_.leaves()) {
    if (leaf.defined()) on_grad_ready(leaf, {});
  }
}

void AdamWInBackward::update(std::size_t i, const Tensor& gradient) {
  const Segment& s = p_.segments()[i];
  bf16* const shadow = shadow_of(p_);
  if (with_norms_) norms_[i] = norm2(gradient);
  run(current_stream(p_.values.device()),
      AdamW{p_.segment_alone(i), 1, s.size, floats(p_.values) + s.offset, floats(gradient), floats(p_.moment1) + s.offset,
            floats(p_.moment2) + s.offset, shadow == nullptr ? nullptr : shadow + s.offset, options_.beta1, options_.beta2, options_.eps,
            options_.weight_decay, step_});
  p_.mark_written(i);
  updated_[i] = true;
}

void AdamWInBackward::finish_step() {
  p_.follow_freezing();
  for (std::size_t i = 0; i < updated_.size(); ++i) {
    const Segment& s = p_.segments()[i];
    if (!updated_[i] && !s.frozen) update(i, zeros({s.size}, DType::f32, p_.values.device()));
    if (s.frozen) norms_[i] = Tensor{};
    updated_[i] = false;
  }
}

double AdamWInBackward::gradient_norm() const {
  return gradient_norm([](const std::string&) { return true; });
}

double AdamWInBackward::gradient_norm(const std::function<bool(const std::string&)>& wanted) const {
  double squares = 0.0;
  // Before finish_step(), the norms of parameters without an update are those of the step before.
  const bool under_way = std::find(updated_.begin(), updated_.end(), true) != updated_.end();
  for (std::size_t i = 0; i < norms_.size(); ++i) {
    if (norms_[i].defined() && (updated_[i] || !under_way) && wanted(p_.segments()[i].name))
      squares += std::pow(static_cast<double>(norms_[i].item()), 2);
  }
  return std::sqrt(squares);
}

void judge_step(const FlatParameters& p, const Tensor& loss, const Tensor& step, const Tensor& record, double max_norm,
                const Tensor& scaling) {
  const NoGrad guard;
  check_same_device("judge_step", {{"loss", loss}, {"record", record}});
  check(loss.count() == 1 && loss.dtype() == DType::f32, "judge_step", "the loss must be one f32", {{"loss", loss}});
  check(record.count() == static_cast<std::int64_t>(sizeof(StepRecord)), "judge_step", "needs the bytes of a StepRecord",
        {{"record", record}});
  check(!scaling.defined() || scaling.count() * size_of(scaling.dtype()) == static_cast<std::int64_t>(sizeof(LossScale)), "judge_step",
        "needs the bytes of a LossScale", {{"scaling", scaling}});
  StepBlock* block = block_in("judge_step", p, step);
  p.need_gradients("judge_step");
  p.settle_gradients();
  const Tensor norm = norm2(p.gradients);
  run(current_stream(p.values.device()), StepVerdict{floats(loss), floats(norm), max_norm, block, static_cast<StepRecord*>(record.raw()),
                                                     scaling.defined() ? static_cast<LossScale*>(scaling.raw()) : nullptr});
}

float clip_factor(double norm, double max_norm) {
  if (max_norm <= 0.0) return 1.0F;
  const double factor = max_norm / (norm + 1e-6);
  return factor < 1.0 ? static_cast<float>(factor) : 1.0F;
}

Ema::Ema(const FlatParameters& parameters, double ema_decay) : average(parameters.values.clone()), decay(ema_decay) {
  if (!(decay >= 0.0 && decay <= 1.0)) {
    throw ConfigError("ema: decay is " + std::to_string(decay) + "; its arguments; give a number from 0 to 1");
  }
}

void Ema::update(const FlatParameters& parameters) {
  const NoGrad guard;
  check(average.shape() == parameters.values.shape(), "ema", "the average is of other parameters",
        {{"average", average}, {"values", parameters.values}});
  // In f32 decay and 1 - decay do not add up to 1: taken apart, they would pull every average off its values, by a thousandth for a decay
  // of 0.99999, and move those of frozen parameters.
  const Tensor difference = sub(parameters.values, average);
  run(current_stream(average.device()), Accumulate{const_buffer_of(difference), buffer_of(average), static_cast<float>(1.0 - decay)});
}

void Ema::swap(FlatParameters& parameters) {
  const NoGrad guard;
  const Tensor live = parameters.values.clone();
  parameters.values.copy_(average);
  parameters.mark_written();
  average.copy_(live);
  parameters.refresh_shadow();
}

}  // namespace twinlens
