// cross_entropy (one target column per row) and soft_cross_entropy (a distribution per row): mean over rows, f32 scalar.

#include "twinlens/kernels/cross_entropy.h"

#include "core/src/ops/elements.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

// What forward keeps per row, see the kernel's header, and the mean itself.
struct RowStatistics {
  Tensor max, others, row_loss, loss, weight;
  explicit RowStatistics(const Tensor& logits)
      : max(empty({logits.size(0)}, DType::f32, logits.device())),
        others(empty({logits.size(0)}, DType::f32, logits.device())),
        row_loss(empty({logits.size(0)}, DType::f32, logits.device())),
        loss(empty({}, DType::f32, logits.device())),
        weight(empty({}, DType::f32, logits.device())) {}
};

struct CrossEntropyNode final : Node {
  Saved logits, targets, max, others, weight;
  std::int64_t ignore = 0;

  const char* name() const override { return "cross_entropy"; }

  void backward(const Tensor& dy, Gradients& grads) override {
    const Tensor& x = logits.get();
    Tensor dlogits = empty(x.shape(), x.dtype(), x.device());
    run(current_stream(x.device()), CrossEntropyBackward{const_rows_of(x), ints(targets.get()), ignore, floats(max.get()),
                                                         floats(others.get()), floats(weight.get()), floats(dy), rows_of(dlogits)});
    grads.add(0, std::move(dlogits));
  }

  void release() override {
    for (Saved* saved : {&logits, &targets, &max, &others, &weight}) saved->reset();
  }
};

struct SoftCrossEntropyNode final : Node {
  Saved logits, targets, max, others, weight;

  const char* name() const override { return "soft_cross_entropy"; }

  void backward(const Tensor& dy, Gradients& grads) override {
    const Tensor &x = logits.get(), &q = targets.get();
    Tensor dlogits, dtargets;
    if (grads.wants(0)) dlogits = empty(x.shape(), x.dtype(), x.device());
    if (grads.wants(1)) dtargets = empty(q.shape(), DType::f32, q.device());
    run(current_stream(x.device()),
        SoftCrossEntropyBackward{const_rows_of(x), const_rows_of(q), floats(max.get()), floats(others.get()), floats(weight.get()),
                                 floats(dy), dlogits.defined() ? rows_of(dlogits) : Rows{},
                                 dtargets.defined() ? rows_of(dtargets) : Rows{}});
    if (dlogits.defined()) grads.add(0, std::move(dlogits));
    if (dtargets.defined()) grads.add(1, std::move(dtargets));
  }

  void release() override {
    for (Saved* saved : {&logits, &targets, &max, &others, &weight}) saved->reset();
  }
};

template <class N>
void save(N& node, const Tensor& logits, const Tensor& targets, const RowStatistics& rows) {
  node.logits = Saved("logits", logits);
  node.targets = Saved("targets", targets);
  node.max = Saved("max", rows.max);
  node.others = Saved("others", rows.others);
  node.weight = Saved("weight", rows.weight);
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, std::int64_t ignore) {
  check_same_device("cross_entropy", {{"logits", logits}, {"targets", targets}});
  check_compute_dtype("cross_entropy", {{"logits", logits}});
  check(logits.rank() == 2 && targets.shape() == Shape{logits.size(0)}, "cross_entropy", "needs logits (N, M) and one target per row",
        {{"logits", logits}, {"targets", targets}});
  check_indices("cross_entropy", {"targets", targets}, logits.size(1), ignore);

  const Tensor x = dense_rows(logits), columns = dense(targets);
  const RowStatistics rows(logits);
  run(current_stream(logits.device()), CrossEntropyForward{const_rows_of(x), ints(columns), ignore, floats(rows.max), floats(rows.others),
                                                           floats(rows.row_loss), floats(rows.loss), floats(rows.weight)});
  if (!needs_grad({&logits})) return rows.loss;
  auto node = std::make_shared<CrossEntropyNode>();
  save(*node, x, columns, rows);
  node->ignore = ignore;
  return record(rows.loss, std::move(node), {&logits});
}

Tensor soft_cross_entropy(const Tensor& logits, const Tensor& targets) {
  check_same_device("soft_cross_entropy", {{"logits", logits}, {"targets", targets}});
  check_compute_dtype("soft_cross_entropy", {{"logits", logits}});
  check(logits.rank() == 2 && targets.shape() == logits.shape(), "soft_cross_entropy", "needs logits (N, M) and targets of the same shape",
        {{"logits", logits}, {"targets", targets}});
  check_dtype(targets.dtype() == DType::f32, "soft_cross_entropy", "targets must be f32", {{"targets", targets}});
  check(logits.size(1) > 0 || logits.size(0) == 0, "soft_cross_entropy", "rows need at least one column", {{"logits", logits}});

  const Tensor x = dense_rows(logits), q = dense_rows(targets);
  const RowStatistics rows(logits);
  run(current_stream(logits.device()), SoftCrossEntropyForward{const_rows_of(x), const_rows_of(q), floats(rows.max), floats(rows.others),
                                                               floats(rows.row_loss), floats(rows.loss), floats(rows.weight)});
  if (!needs_grad({&logits, &targets})) return rows.loss;
  auto node = std::make_shared<SoftCrossEntropyNode>();
  save(*node, x, q, rows);
  return record(rows.loss, std::move(node), {&logits, &targets});
}

}  // namespace twinlens
