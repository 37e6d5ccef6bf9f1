#include "twinlens/core/autograd.h"

#include <algorithm>
#include <queue>
#include <unordered_map>
#include <utility>

#include "core/src/tape.h"
#include "core/src/tensor_state.h"

#include "twinlens/core/check.h"
#include "twinlens/kernels/accumulate.h"
#include "twinlens/kernels/scope.h"

namespace twinlens {
namespace {

thread_local bool recording = true;
thread_local bool second_run = false;           // of what a checkpoint holds
thread_local int no_grad_depth = 0;             // NoGrad guards alive
thread_local LeafProbe* probe = nullptr;        // null but in the first run of a checkpoint
thread_local const char* running = "backward";  // the node whose backward runs
thread_local std::uint64_t next_sequence = 0;

struct Running {
  explicit Running(const char* name) : outer(std::exchange(running, name)) {}
  ~Running() { running = outer; }
  const char* outer;
};

// y += x, elementwise, both dense.
void add_into(const Tensor& y, const Tensor& x) {
  const Tensor source = dense(x);
  run(current_stream(y.device()), Accumulate{const_buffer_of(source), buffer_of(y)});
  ++y.state()->storage->version;
}

// What stands behind a tensor that `op` was given.
TensorState& present(const char* op, const Tensor& x) {
  if (!x.defined())
    fail(ErrorKind::autograd, op, "an absent tensor was given; Tensor{} has no gradient and no place on the tape", {{"x", x}});
  return *x.state();
}

std::size_t input_of(const Node& node, int i) {
  if (i < 0 || static_cast<std::size_t>(i) >= node.inputs.size()) {
    fail(ErrorKind::autograd, node.name(),
         "backward names input " + std::to_string(i) + ", and inputs recorded are " + std::to_string(node.inputs.size()) +
             "; count from 0, in the order given to record()");
  }
  return static_cast<std::size_t>(i);
}

bool only_owner(const Tensor& x) { return x.state().use_count() == 1 && x.state()->storage.use_count() == 1 && x.is_dense(); }

// sum of two gradients that met; f32 if either is.
Tensor sum_gradients(Tensor a, Tensor b) {
  if (only_owner(a) && (a.dtype() == DType::f32 || b.dtype() != DType::f32)) {
    add_into(a, b);
    return a;
  }
  if (only_owner(b) && (b.dtype() == DType::f32 || a.dtype() != DType::f32)) {
    add_into(b, a);
    return b;
  }
  const bool wide = a.dtype() == DType::f32 || b.dtype() == DType::f32;
  Tensor sum = wide && a.dtype() != DType::f32 ? a.to(DType::f32) : a.clone();
  add_into(sum, b);
  return sum;
}

}  // namespace

// One run of backward: how many gradients each node and leaf still waits for, and what has come so far.
class Engine {
 public:
  explicit Engine(bool calls_hooks) : calls_hooks_(calls_hooks) {}

  void run(const Tensor& y, Tensor dy) {
    const Edge root = edge_of(y);
    count_from(root.node);
    if (root.leaf != nullptr) ++leaves_[root.leaf.get()];
    if (root.node != nullptr) nodes_[root.node.get()].waiting += 1;
    give(root, std::move(dy));
    call_hooks();
    while (!ready_.empty()) {
      const std::shared_ptr<Node> node = ready_.top();
      ready_.pop();
      run_node(*node);
      call_hooks();
    }
  }

  static Edge edge_of(const Tensor& x) {
    TensorState& state = *x.state();
    if (state.node != nullptr) return {state.node, nullptr};
    if (state.gradient_leaf != nullptr) return {nullptr, state.gradient_leaf->requires_grad ? state.gradient_leaf : nullptr};
    return {nullptr, state.requires_grad ? x.state() : nullptr};
  }

  // A gradient (or, when absent, the news that none will come from there) for the tensor behind the edge.
  void give(const Edge& edge, Tensor g) {
    // The CPU stores f16 and does not add in it.
    if (g.defined() && g.dtype() == DType::f16 && g.device().is_cpu()) g = g.to(DType::f32);
    if (edge.leaf != nullptr) {
      if (g.defined() && edge.leaf->requires_grad) add_to_leaf(*edge.leaf, std::move(g));
      leaf_served(edge.leaf);
    } else if (edge.node != nullptr) {
      Work& work = nodes_[edge.node.get()];
      if (g.defined()) work.dy = work.dy.defined() ? sum_gradients(std::move(work.dy), std::move(g)) : std::move(g);
      if (--work.waiting == 0) ready_.push(edge.node);
    }
  }

  void leaf_served(const std::shared_ptr<TensorState>& leaf) {
    if (--leaves_[leaf.get()] == 0 && calls_hooks_ && leaf->hook && leaf->grad.defined()) complete_.push_back(leaf);
  }

 private:
  struct Work {
    int waiting = 0;
    Tensor dy;
  };
  // The node recorded last runs first: a fixed order.
  struct RecordedBefore {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const { return a->sequence < b->sequence; }
  };

  void count_from(const std::shared_ptr<Node>& root) {
    if (root == nullptr) return;
    std::vector<Node*> open{root.get()};
    nodes_[root.get()];
    while (!open.empty()) {
      Node* node = open.back();
      open.pop_back();
      for (const Edge& edge : node->inputs) {
        if (edge.leaf != nullptr) ++leaves_[edge.leaf.get()];
        if (edge.node == nullptr) continue;
        const auto [it, is_new] = nodes_.try_emplace(edge.node.get());
        ++it->second.waiting;
        if (is_new) open.push_back(edge.node.get());
      }
    }
  }

  void run_node(Node& node) {
    Tensor dy = std::move(nodes_[&node].dy);
    if (node.has_run) {
      throw AutogradError(std::string(node.name()) + ": backward ran a second time over the same tape; its saved tensors are gone" +
                          (node.scope.empty() ? "" : "; in " + node.scope) + "; run the forward again");
    }
    Gradients grads(*this, node);
    if (dy.defined()) {
      const ScopePath scope(node.scope.empty() ? node.name() : node.scope);
      const Running named(node.name());
      node.backward(dy, grads);
    }
    node.has_run = true;
    node.release();
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!grads.served_[i]) give(node.inputs[i], Tensor{});
    }
    // This node lets go of its inputs now, so that memory is freed as backward goes.
    node.inputs.clear();
  }

  // Between nodes: what the last one had saved is gone, and no node that still runs reads the leaf, so a hook may write to it.
  void call_hooks() {
    for (const std::shared_ptr<TensorState>& leaf : complete_) {
      const auto hook = leaf->hook;  // which may remove or replace itself
      if (!hook) continue;
      settle_grad(Tensor(leaf));  // where nothing came
      hook(Tensor(leaf));
    }
    complete_.clear();
  }

  static void add_to_leaf(TensorState& leaf, Tensor g) {
    if (leaf.grad.defined()) {
      if (leaf.grad_is_forgotten) {
        leaf.grad.copy_(g);
        leaf.grad_is_forgotten = false;
      } else if (leaf.grad_is_bound) {
        add_into(leaf.grad, g);
      } else {
        leaf.grad = sum_gradients(std::move(leaf.grad), std::move(g));
      }
      return;
    }
    g = g.to(DType::f32);
    leaf.grad = only_owner(g) ? std::move(g) : g.clone();
  }

  bool calls_hooks_;
  std::unordered_map<Node*, Work> nodes_;
  std::unordered_map<TensorState*, int> leaves_;
  std::vector<std::shared_ptr<TensorState>> complete_;  // leaves whose hooks are due
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, RecordedBefore> ready_;
};

bool Edge::wanted() const { return node != nullptr || (leaf != nullptr && leaf->requires_grad); }

Node::Node() : sequence(next_sequence++) {}

// A long chain that is dropped must not be destroyed by recursion: nodes that only this one holds are taken apart here, one after another.
Node::~Node() {
  std::vector<std::shared_ptr<Node>> held;
  const auto take_inputs = [&](Node& node) {
    for (Edge& edge : node.inputs) {
      if (edge.node != nullptr) held.push_back(std::move(edge.node));
    }
  };
  take_inputs(*this);
  while (!held.empty()) {
    const std::shared_ptr<Node> node = std::move(held.back());
    held.pop_back();
    if (node.use_count() == 1) take_inputs(*node);
  }
}

Saved::Saved(const char* name, const Tensor& tensor) : name_(name) {
  if (!tensor.defined()) return;
  const TensorState& state = *tensor.state();
  if (state.recipe && state.recipe_version == tensor.version()) {
    recipe_ = state.recipe;
    return;
  }
  tensor_ = tensor.detach();
  version_ = tensor.version();
}

const Tensor& Saved::get() const {
  if (recipe_ && !tensor_.defined()) {
    const NoGrad guard;
    tensor_ = recipe_();
  } else if (!recipe_ && tensor_.defined() && tensor_.version() != version_) {
    fail(ErrorKind::autograd, running, "a saved tensor was modified in place between forward and backward; clone it before writing",
         {{name_, tensor_}});
  }
  return tensor_;
}

void set_recipe(const Tensor& y, std::function<Tensor()> recipe) {
  TensorState& state = present("set_recipe", y);
  state.recipe = std::move(recipe);
  state.recipe_version = y.version();
}

bool Gradients::wants(int i) const { return node_.inputs[input_of(node_, i)].wanted(); }

// A leaf is complete when each of its uses was served once.
void Gradients::serve(std::size_t index) {
  if (served_[index])
    fail(ErrorKind::autograd, node_.name(), "backward gave input " + std::to_string(index) + " twice; add its shares up first");
  served_[index] = true;
}

void Gradients::add(int i, Tensor g) {
  const std::size_t index = input_of(node_, i);
  if (!node_.inputs[index].wanted()) return;
  check(g.shape() == node_.input_shapes[index], node_.name(),
        "backward gave a gradient of another shape than input " + std::to_string(i) + " " + to_string(node_.input_shapes[index]),
        {{"gradient", g}});
  serve(index);
  engine_.give(node_.inputs[index], std::move(g));
}

Tensor Gradients::accumulator(int i, bool* forgotten) const {
  const Edge& edge = node_.inputs[input_of(node_, i)];
  if (!edge.wanted() || edge.leaf == nullptr || !edge.leaf->grad_is_bound || edge.leaf->grad.dtype() != DType::f32 ||
      !edge.leaf->grad.is_dense())
    return {};
  if (forgotten != nullptr) {
    *forgotten = edge.leaf->grad_is_forgotten;
  } else {
    settle_grad(Tensor(edge.leaf));
  }
  return edge.leaf->grad;
}

void Gradients::done(int i) {
  const std::size_t index = input_of(node_, i);
  if (node_.inputs[index].leaf == nullptr || !node_.inputs[index].leaf->grad_is_bound) {
    fail(ErrorKind::autograd, node_.name(),
         "backward says that input " + std::to_string(i) +
             " is done, which has no gradient block; call add() where accumulator() is absent");
  }
  serve(index);
  node_.inputs[index].leaf->grad_is_forgotten = false;
  ++node_.inputs[index].leaf->grad.state()->storage->version;
  engine_.leaf_served(node_.inputs[index].leaf);
}

bool grad_enabled() { return recording; }
NoGrad::NoGrad() : previous_(recording) {
  recording = false;
  ++no_grad_depth;
}
NoGrad::~NoGrad() {
  recording = previous_;
  --no_grad_depth;
}

bool needs_grad(std::initializer_list<const Tensor*> inputs) {
  if (!recording) {
    for (const Tensor* x : inputs) {
      if (probe != nullptr && x->defined()) probe->see(*x);
    }
    return false;
  }
  for (const Tensor* x : inputs) {
    if (x->defined() && Engine::edge_of(*x).wanted()) return true;
  }
  return false;
}

Recording::Recording() : previous_(std::exchange(recording, true)), again_(std::exchange(second_run, true)) {}
Recording::~Recording() {
  recording = previous_;
  second_run = again_;
}
bool runs_again() { return second_run; }

LeafProbe::LeafProbe() : outer_(std::exchange(probe, this)), own_depth_(no_grad_depth) {}
LeafProbe::~LeafProbe() { probe = outer_; }

void LeafProbe::see(const Tensor& x) {
  const Edge edge = Engine::edge_of(x);
  const bool recorded = no_grad_depth == own_depth_;  // or fn has a NoGrad of its own
  if (edge.node != nullptr && recorded) {
    fail(ErrorKind::autograd, "checkpoint",
         "fn uses a tensor that an op outside of it made and that wants a gradient; pass it among the inputs", {{"x", x}});
  }
  const auto is_leaf = [&](const Tensor& leaf) { return leaf.state() == edge.leaf; };
  std::vector<Tensor>& seen = recorded ? leaves_ : bystanders_;
  if (edge.leaf != nullptr && std::none_of(seen.begin(), seen.end(), is_leaf)) seen.push_back(Tensor(edge.leaf));
}

void share_gradient(const Tensor& shadow, const Tensor& leaf) {
  TensorState& state = present("share_gradient", shadow);
  present("share_gradient", leaf);
  check(shadow.shape() == leaf.shape(), "share_gradient", "a shadow must have the shape of its leaf", {{"shadow", shadow}, {"leaf", leaf}});
  state.gradient_leaf = leaf.state();
}

Tensor record(Tensor y, std::shared_ptr<Node> node, const std::vector<Tensor>& inputs) {
  TensorState& state = present("record", y);
  if (node == nullptr) fail(ErrorKind::autograd, "record", "needs a node, which backward goes through", {{"y", y}});
  for (const Tensor& x : inputs) {
    node->inputs.push_back(x.defined() ? Engine::edge_of(x) : Edge{});
    node->input_shapes.push_back(x.defined() ? x.shape() : Shape{});
  }
  node->scope = Scope::path();
  state.requires_grad = true;
  state.node = std::move(node);
  return y;
}

Tensor record(Tensor y, std::shared_ptr<Node> node, std::initializer_list<const Tensor*> inputs) {
  std::vector<Tensor> list;
  list.reserve(inputs.size());
  for (const Tensor* x : inputs) list.push_back(*x);
  return record(std::move(y), std::move(node), list);
}

void backward(const Tensor& loss) {
  present("backward", loss);
  check(loss.count() == 1, "backward", "without an upstream gradient the tensor must have one element", {{"loss", loss}});
  backward(loss, full(loss.shape(), 1.0, DType::f32, loss.device()));
}

namespace {

void run_backward(const Tensor& y, const Tensor& dy, bool calls_hooks) {
  for (const Tensor* x : {&y, &dy}) present("backward", *x);
  check(y.shape() == dy.shape(), "backward", "the upstream gradient must have the shape of the result", {{"y", y}, {"dy", dy}});
  check_same_device("backward", {{"y", y}, {"dy", dy}});
  check_dtype(is_float(dy.dtype()), "backward", "the upstream gradient must be floating", {{"y", y}, {"dy", dy}});
  if (!y.requires_grad())
    fail(ErrorKind::autograd, "backward",
         "nothing here wants a gradient; call set_requires_grad(true) on a leaf, and mind that nothing is recorded under NoGrad and in "
         "hooks",
         {{"y", y}});
  const NoGrad guard;
  Engine engine(calls_hooks);
  engine.run(y, dy.dtype() == DType::f32 ? dy : dy.to(y.dtype()));
}

}  // namespace

void backward(const Tensor& y, const Tensor& dy) { run_backward(y, dy, true); }
void backward_within(const Tensor& y, const Tensor& dy) { run_backward(y, dy, false); }

void forget_grad(const Tensor& leaf) {
  TensorState& state = present("forget_grad", leaf);
  state.grad_is_forgotten = state.grad_is_bound;
  if (!state.grad_is_bound) state.grad = {};  // backward makes another
}

void settle_grad(const Tensor& leaf) {
  TensorState& state = present("settle_grad", leaf);
  if (!state.grad_is_forgotten) return;
  state.grad.fill_(0.0);
  state.grad_is_forgotten = false;
}

void on_grad_ready(const Tensor& leaf, std::function<void(const Tensor&)> hook) {
  TensorState& state = present("on_grad_ready", leaf);
  if (hook && !leaf.is_leaf())
    fail(ErrorKind::autograd, "on_grad_ready", "only leaves keep gradients; this tensor was made by an op", {{"x", leaf}});
  state.hook = std::move(hook);
}

}  // namespace twinlens
