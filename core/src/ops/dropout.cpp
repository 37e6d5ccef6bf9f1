#include "twinlens/kernels/dropout.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

const std::int64_t* ids_or_null(const Tensor& x) { return x.defined() ? static_cast<const std::int64_t*>(x.raw()) : nullptr; }

Tensor apply(const Tensor& x, double p, const RandomKey& key, const StepBlock* block, const RowIds& ids) {
  const Tensor source = dense(x);
  Tensor y = empty(x.shape(), x.dtype(), x.device());
  // Rows are the leading dimension, whatever follows is one row's elements.
  const std::int64_t rows = x.size(0), columns = rows == 0 ? 0 : x.count() / rows;
  DropoutRows args;
  args.x = {source.raw(), x.dtype(), rows, columns, columns, nullptr};
  args.y = {y.raw(), x.dtype(), rows, columns, columns, nullptr};
  args.p = p;
  args.step = block;
  args.site = key.site;
  args.sample = ids_or_null(ids.sample);
  args.position = ids_or_null(ids.position);
  run(current_stream(x.device()), args);
  return y;
}

struct DropoutNode final : Node {
  double p = 0.0;
  RandomKey key;
  Tensor block;  // as it was in the forward pass
  Saved sample, position;
  const char* name() const override { return "dropout"; }
  void backward(const Tensor& dy, Gradients& grads) override {
    grads.add(0, apply(dy, p, key, static_cast<const StepBlock*>(block.raw()), {sample.get(), position.get()}));
  }
  void release() override {
    sample.reset();
    position.reset();
    block = {};
  }
};

// A copy made on the device, without the host looking at it.
Tensor copy_of(const StepBlock* block, Device device) {
  Tensor copy = empty({static_cast<std::int64_t>(sizeof(StepBlock))}, DType::u8, device);
  copy_bytes(current_stream(device), copy.raw(), device, block, device, sizeof(StepBlock));
  return copy;
}

}  // namespace

Tensor dropout(const Tensor& x, double p, const RandomKey& key, const RowIds& ids) {
  check_compute_dtype("dropout", {{"x", x}});
  check(x.rank() >= 1, "dropout", "x needs at least one dimension", {{"x", x}});
  check(p >= 0.0 && p < 1.0, "dropout", "the probability " + std::to_string(p) + " must be in [0, 1)", {{"x", x}});
  if (p == 0.0) return x;
  check(key.block != nullptr, "dropout", "the random key has no step block", {{"x", x}});
  check_same_device("dropout", {{"x", x}, {"sample ids", ids.sample}, {"positions", ids.position}});
  for (const Tensor* id : {&ids.sample, &ids.position}) {
    check(!id->defined() || (id->shape() == Shape{x.size(0)} && id->dtype() == DType::i64 && id->is_dense()), "dropout",
          "row ids must be dense i64, one a row", {{"x", x}, {"ids", *id}});
  }
  Tensor y = apply(x, p, key, key.block, ids);
  if (!needs_grad({&x})) return y;
  auto node = std::make_shared<DropoutNode>();
  node->p = p;
  node->key = key;
  node->block = copy_of(key.block, x.device());
  node->sample = Saved("ids.sample", ids.sample);
  node->position = Saved("ids.position", ids.position);
  return record(std::move(y), std::move(node), {&x});
}

}  // namespace twinlens
