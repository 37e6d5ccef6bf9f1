#include "twinlens/kernels/sample.h"

#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"

namespace twinlens {
namespace {

const std::int64_t* ids_or_null(const Tensor& x) { return x.defined() ? static_cast<const std::int64_t*>(x.raw()) : nullptr; }

Tensor draw(const char* op, const Tensor& x, bool logits, const RandomKey& key, const RowIds& ids) {
  check_compute_dtype(op, {{"x", x}});
  check_same_device(op, {{"x", x}, {"sample ids", ids.sample}, {"positions", ids.position}});
  check(x.rank() >= 1 && x.size(-1) > 0, op, "needs at least one column", {{"x", x}});
  check(key.block != nullptr, op, "the random key has no step block", {{"x", x}});
  const Tensor rows = dense_rows(x.detach());
  Tensor y = empty(x.shape().without(-1), DType::i64, x.device());
  for (const Tensor* id : {&ids.sample, &ids.position}) {
    check(!id->defined() || (id->shape() == Shape{y.count()} && id->dtype() == DType::i64 && id->is_dense()), op,
          "row ids must be dense i64, one a row", {{"x", x}, {"ids", *id}});
  }
  SampleRows args;
  args.x = const_rows_of(rows);
  args.index = static_cast<std::int64_t*>(y.raw());
  args.logits = logits;
  args.step = key.block;
  args.site = key.site;
  args.sample = ids_or_null(ids.sample);
  args.position = ids_or_null(ids.position);
  run(current_stream(x.device()), args);
  for (std::int64_t r = 0; !x.device().is_cuda() && r < y.count(); ++r) {
    if (args.index[r] < 0) {
      check(false, op, "row " + std::to_string(r) + " is no distribution: no weight above 0, one below, or one not finite", {{"x", x}});
    }
  }
  return y;
}

}  // namespace

Tensor sample(const Tensor& weights, const RandomKey& key, const RowIds& ids) { return draw("sample", weights, false, key, ids); }
Tensor sample_logits(const Tensor& logits, const RandomKey& key, const RowIds& ids) {
  return draw("sample_logits", logits, true, key, ids);
}

}  // namespace twinlens
