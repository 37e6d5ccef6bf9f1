#include "twinlens/kernels/attention.h"

#include <algorithm>
#include <cmath>

#include "core/src/ops/elements.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/parallel.h"

namespace twinlens {
namespace {

// The columns [column, column + cols) of x as rows for a kernel.
template <class R>
R columns_of(R rows, std::int64_t column, std::int64_t cols) {
  using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(rows.data)>>, const std::uint8_t, std::uint8_t>;
  rows.data = static_cast<Bytes*>(rows.data) + column * size_of(rows.dtype);
  rows.cols = cols;
  return rows;
}

// What both directions are called with, as plain numbers; the views of q, k and v are put in at the call.
struct Plan {
  AttentionProblem problem{};
  Tensor query_offsets, key_offsets, bias;
};

// Offsets must go from 0 up to the number of rows.
void check_offsets(const char* op, const char* name, const SequenceOffsets& o, const Tensor& x) {
  if (o.ascending() && o.rows() == x.size(0)) return;
  const Tensor& offsets = o.tensor();
  const std::vector<std::int64_t>& at = o.host();
  std::int64_t before = 0;
  for (std::size_t s = 0; s < at.size(); ++s) {
    check(at[s] >= before && at[s] <= x.size(0), op,
          std::string(name) + "[" + std::to_string(s) + "] = " + std::to_string(at[s]) + " must lie in [" + std::to_string(before) + "," +
              std::to_string(x.size(0)) + "]",
          {{name, offsets}, {"x", x}});
    before = at[s];
  }
  check(at.front() == 0 && at.back() == x.size(0), op, std::string(name) + " must go from 0 to the number of rows",
        {{name, offsets}, {"x", x}});
}

Plan plan_of(const char* op, const Tensor& q, const Tensor& k, std::int64_t columns, const AttentionOptions& options) {
  check(options.heads >= 1 && columns % options.heads == 0, op,
        "heads = " + std::to_string(options.heads) + " must divide the " + std::to_string(columns) + " columns of q", {{"q", q}});
  check(std::isfinite(options.scale), op, "scale = " + std::to_string(options.scale) + " must be finite; 0 means 1 / sqrt(D)", {{"q", q}});
  check(options.query_offsets.defined(), op, "query_offsets is missing; equal_offsets() makes those of a dense batch", {{"q", q}});
  Plan plan;
  const SequenceOffsets& queries = options.query_offsets;
  const SequenceOffsets& keys = options.key_offsets.defined() ? options.key_offsets : queries;
  plan.query_offsets = queries.tensor();
  plan.key_offsets = keys.tensor();
  check_same_device(op, {{"q", q}, {"query_offsets", plan.query_offsets}, {"key_offsets", plan.key_offsets}, {"bias", options.bias}});
  check_offsets(op, "query_offsets", queries, q);
  check_offsets(op, "key_offsets", keys, k);
  AttentionProblem& p = plan.problem;
  p.longest_query = queries.longest();
  p.longest_key = keys.longest();
  check(plan.query_offsets.shape() == plan.key_offsets.shape(), op, "queries and keys must have the same number of sequences",
        {{"query_offsets", plan.query_offsets}, {"key_offsets", plan.key_offsets}});
  p.sequences = queries.sequences();
  p.heads = options.heads;
  p.head_dim = columns / options.heads;
  p.causal = options.causal;
  p.scale = static_cast<float>(options.scale != 0.0 ? options.scale
                                                    : 1.0 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, p.head_dim))));
  if (options.bias.defined()) {
    const Tensor& bias = options.bias;
    check_dtype(bias.dtype() == DType::f32, op, "bias must be f32", {{"bias", bias}});
    check(bias.rank() == 3 && (bias.size(0) == 1 || bias.size(0) == p.heads) && bias.size(1) == p.longest_query &&
              bias.size(2) == p.longest_key && queries.all_of(p.longest_query) && keys.all_of(p.longest_key),
          op, "bias must be (heads or 1, Tq, Tk) and all sequences of these lengths", {{"q", q}, {"k", k}, {"bias", bias}});
    check(!bias.requires_grad(), op, "bias gets no gradient; detach it", {{"bias", bias}});
    plan.bias = dense(bias);
    p.bias_heads = bias.size(0);
  }
  p.slots = thread_count();
  return plan;
}

// The problem with its pointers. The tensors must outlive the call.
AttentionProblem problem_of(const Plan& plan, const ConstRows& q, const ConstRows& k, const ConstRows& v) {
  AttentionProblem p = plan.problem;
  p.q = q;
  p.k = k;
  p.v = v;
  p.query_offsets = ints(plan.query_offsets);
  p.key_offsets = ints(plan.key_offsets);
  p.bias = plan.bias.defined() ? static_cast<const float*>(plan.bias.raw()) : nullptr;
  return p;
}

template <class Args>
void run_with_scratch(Args& args, Device device) {
  const Shape shape = device.is_cuda() ? Shape{cuda_scratch_floats(args)} : Shape{args.problem.slots, scratch_floats(args)};
  const Tensor scratch = empty(shape, DType::f32, device);
  args.problem.scratch = floats(scratch);
  run(current_stream(device), args);
}

void forward(const Plan& plan, const ConstRows& q, const ConstRows& k, const ConstRows& v, const Tensor& y, const Tensor& lse) {
  AttentionForward args{problem_of(plan, q, k, v), rows_of(y), floats(lse)};
  run_with_scratch(args, y.device());
}

// A plan, and whether its tensors are as they were.
struct KeptPlan {
  KeptPlan() = default;
  explicit KeptPlan(const Plan& p)
      : plan(p), saved{Saved("query_offsets", p.query_offsets), Saved("key_offsets", p.key_offsets), Saved("bias", p.bias)} {}
  const Plan& get() const {
    for (const Saved& tensor : saved) tensor.get();  // (says so when they were changed)
    return plan;
  }
  Plan plan;
  Saved saved[3];
};

struct AttentionNode final : Node {
  KeptPlan plan;
  Saved q, k, v, y, lse;

  const char* name() const override { return "attention"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor dy = dense_rows(dy_in);
    AttentionBackward args{};
    args.problem = problem_of(plan.get(), const_rows_of(q.get()), const_rows_of(k.get()), const_rows_of(v.get()));
    if (dy.device().is_cuda()) args.y = const_rows_of(y.get());
    args.dy = const_rows_of(dy);
    args.lse = static_cast<const float*>(lse.get().raw());
    Tensor gradient[3];
    Rows* rows[3] = {&args.dq, &args.dk, &args.dv};
    const Saved* saved[3] = {&q, &k, &v};
    for (int i = 0; i < 3; ++i) {
      if (!grads.wants(i)) continue;
      const Tensor& x = saved[i]->get();
      gradient[i] = empty(x.shape(), x.dtype(), x.device());
      *rows[i] = rows_of(gradient[i]);
    }
    run_with_scratch(args, dy.device());
    for (int i = 0; i < 3; ++i) {
      if (gradient[i].defined()) grads.add(i, std::move(gradient[i]));
    }
  }

  void release() override {
    for (Saved* saved : {&q, &k, &v, &y, &lse}) saved->reset();
    plan = KeptPlan{};
  }
};

struct AttentionQkvNode final : Node {
  KeptPlan plan;
  Saved qkv, y, lse;

  const char* name() const override { return "attention_qkv"; }

  void backward(const Tensor& dy_in, Gradients& grads) override {
    const Tensor x = qkv.get(), dy = dense_rows(dy_in);
    const std::int64_t c = x.size(1) / 3;
    Tensor dx = empty(x.shape(), x.dtype(), x.device());
    const ConstRows rows = const_rows_of(x);
    AttentionBackward args{};
    args.problem = problem_of(plan.get(), columns_of(rows, 0, c), columns_of(rows, c, c), columns_of(rows, 2 * c, c));
    if (dy.device().is_cuda()) args.y = const_rows_of(y.get());
    args.dy = const_rows_of(dy);
    args.lse = static_cast<const float*>(lse.get().raw());
    args.dq = columns_of(rows_of(dx), 0, c);
    args.dk = columns_of(rows_of(dx), c, c);
    args.dv = columns_of(rows_of(dx), 2 * c, c);
    run_with_scratch(args, dy.device());
    grads.add(0, std::move(dx));
  }

  void release() override {
    qkv.reset();
    y.reset();
    lse.reset();
    plan = KeptPlan{};
  }
};

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  check(q.rank() == 2 && k.rank() == 2 && k.shape() == v.shape() && q.size(1) == k.size(1), "attention",
        "q must be (Nq, H*D), k and v (Nk, H*D)", {{"q", q}, {"k", k}, {"v", v}});
  check_compute_dtype("attention", {{"q", q}, {"k", k}, {"v", v}});
  check_dtype(q.dtype() == k.dtype() && q.dtype() == v.dtype(), "attention", "q, k and v must have one dtype",
              {{"q", q}, {"k", k}, {"v", v}});
  check_same_device("attention", {{"q", q}, {"k", k}, {"v", v}});
  const Plan plan = plan_of("attention", q, k, q.size(1), options);

  const Tensor q_rows = dense_rows(q), k_rows = dense_rows(k), v_rows = dense_rows(v);
  Tensor y = empty(q.shape(), q.dtype(), q.device());
  const Tensor lse = empty({options.heads, q.size(0)}, DType::f32, q.device());
  forward(plan, const_rows_of(q_rows), const_rows_of(k_rows), const_rows_of(v_rows), y, lse);
  if (!needs_grad({&q, &k, &v})) return y;
  auto node = std::make_shared<AttentionNode>();
  node->plan = KeptPlan(plan);
  node->q = Saved("q", q_rows);
  node->k = Saved("k", k_rows);
  node->v = Saved("v", v_rows);
  if (y.device().is_cuda()) node->y = Saved("y", y);  // the CPU kernel does without
  node->lse = Saved("lse", lse);
  return record(std::move(y), std::move(node), {&q, &k, &v});
}

Tensor attention_qkv(const Tensor& qkv, const AttentionOptions& options) {
  check(qkv.rank() == 2 && qkv.size(1) % 3 == 0, "attention_qkv", "qkv must be (N, 3*H*D)", {{"qkv", qkv}});
  check(!options.key_offsets.defined(), "attention_qkv", "self-attention has no key_offsets of its own", {{"qkv", qkv}});
  check_compute_dtype("attention_qkv", {{"qkv", qkv}});
  const std::int64_t c = qkv.size(1) / 3;
  const Plan plan = plan_of("attention_qkv", qkv, qkv, c, options);

  const Tensor rows = dense_rows(qkv);
  Tensor y = empty({qkv.size(0), c}, qkv.dtype(), qkv.device());
  const Tensor lse = empty({options.heads, qkv.size(0)}, DType::f32, qkv.device());
  const ConstRows all = const_rows_of(rows);
  forward(plan, columns_of(all, 0, c), columns_of(all, c, c), columns_of(all, 2 * c, c), y, lse);
  if (!needs_grad({&qkv})) return y;
  auto node = std::make_shared<AttentionQkvNode>();
  node->plan = KeptPlan(plan);
  node->qkv = Saved("qkv", rows);
  if (y.device().is_cuda()) node->y = Saved("y", y);  // the CPU kernel does without
  node->lse = Saved("lse", lse);
  return record(std::move(y), std::move(node), {&qkv});
}

}  // namespace twinlens
