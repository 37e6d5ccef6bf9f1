#include "core/src/tape.h"

#include "twinlens/core/check.h"

namespace twinlens {
namespace {

struct CheckpointNode final : Node {
  std::function<Tensor(const std::vector<Tensor>&)> fn;
  std::vector<Saved> saved;
  std::vector<Saved> leaves;  // that fn uses by itself: the second run must find them as the first did
  std::vector<bool> wanted;

  const char* name() const override { return "checkpoint"; }

  void backward(const Tensor& dy, Gradients& grads) override {
    for (const Saved& leaf : leaves) leaf.get();
    std::vector<Tensor> again;
    for (std::size_t i = 0; i < saved.size(); ++i) {
      again.push_back(saved[i].defined() ? saved[i].get().detach() : Tensor{});
      if (wanted[i]) again.back().set_requires_grad(true);
    }
    Tensor y;
    {
      const Recording on;
      y = fn(again);
    }
    if (y.requires_grad()) backward_within(y, dy);
    for (std::size_t i = 0; i < again.size(); ++i) {
      if (!wanted[i] || !again[i].grad().defined()) continue;
      Tensor g = again[i].grad();
      again[i].set_grad(Tensor{});
      grads.add(static_cast<int>(i), std::move(g));
    }
  }

  void release() override {
    saved.clear();
    leaves.clear();
    fn = nullptr;
  }
};

}  // namespace

Tensor checkpoint(const std::function<Tensor(const std::vector<Tensor>&)>& fn, const std::vector<Tensor>& inputs) {
  check(fn != nullptr, "checkpoint", "there is no function to run; give one");
  if (!grad_enabled()) return fn(inputs);
  auto node = std::make_shared<CheckpointNode>();
  bool any_wanted = false;
  std::vector<Tensor> detached;
  for (const Tensor& x : inputs) {
    node->saved.emplace_back("input", x);
    node->wanted.push_back(needs_grad({&x}));
    any_wanted = any_wanted || node->wanted.back();
    detached.push_back(x.defined() ? x.detach() : Tensor{});
  }
  // The leaves that fn uses are inputs of the node too: a leaf's hook waits for the last segment that uses it, and a segment that uses
  // none, between inputs that want none, is not recorded.
  std::vector<Tensor> edges = inputs;
  Tensor y;
  {
    const LeafProbe probe;
    y = fn(detached).detach();
    edges.insert(edges.end(), probe.leaves().begin(), probe.leaves().end());
    if (!any_wanted && edges.size() == inputs.size()) return y;
    edges.insert(edges.end(), probe.bystanders().begin(), probe.bystanders().end());
  }
  for (std::size_t i = inputs.size(); i < edges.size(); ++i) node->leaves.emplace_back("a leaf that fn uses", edges[i]);
  node->fn = fn;
  return record(std::move(y), std::move(node), edges);
}

}  // namespace twinlens
