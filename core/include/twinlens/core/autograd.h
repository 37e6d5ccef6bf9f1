#pragma once
// The tape. Every op that touches a tensor that wants a gradient records a Node: a struct with named saved tensors and a backward.
// backward(loss) runs nodes in an order without recursion in which a leaf is served as soon as its last gradient has come, so that
// gradient hooks overlap what is still being computed. First order only: backward itself records nothing.
//
// A tape belongs to the thread that built it. Saved tensors are dropped as soon as their node has run; a second backward says so.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "twinlens/core/tensor.h"

namespace twinlens {

// A tensor kept for backward, or how to compute it again (set_recipe). get() throws AutogradError, naming the op and the tensor, when its
// elements were changed in place since.
class Saved {
 public:
  Saved() = default;
  Saved(const char* name, const Tensor& tensor);
  const Tensor& get() const;
  bool defined() const { return tensor_.defined() || recipe_ != nullptr; }
  void reset() { *this = Saved{}; }

 private:
  const char* name_ = "";
  mutable Tensor tensor_;  // made by the first get() when there is a recipe
  std::uint32_t version_ = 0;
  std::function<Tensor()> recipe_;
};

// How y, fresh from an op, can be computed again from tensors that are kept anyway: ops that would keep y for backward keep the recipe
// instead. It is called without recording.
void set_recipe(const Tensor& y, std::function<Tensor()> recipe);

// The same elements with a version of their own, for the parts of a block that are written one by one: writing to one leaves what is saved
// of the others good. Who writes through x marks the parts (mark_written). Not recorded.
Tensor apart(const Tensor& x);

class Gradients;

// What connects a recorded op to one of its inputs: the node that made the input, or the leaf itself.
struct Edge {
  std::shared_ptr<Node> node;         // null for a leaf
  std::shared_ptr<TensorState> leaf;  // null unless the input is a leaf that wanted a gradient when the op was recorded
  bool wanted() const;                // and wants it still
};

class Node {
 public:
  Node();
  virtual ~Node();
  virtual const char* name() const = 0;
  // Gradient of the output is dy (shape and device of the output; dtype f32 or that of the output). Calls grads.add(i, ...) for each
  // wanted input, in the order of the inputs given to record().
  virtual void backward(const Tensor& dy, Gradients& grads) = 0;
  // Drops the saved tensors.
  virtual void release() = 0;

  std::vector<Edge> inputs;
  std::vector<Shape> input_shapes;
  std::string scope;           // Scope::path() when the op was recorded
  std::uint64_t sequence = 0;  // order of recording on this thread
  bool has_run = false;
};

// What a node's backward writes to.
class Gradients {
 public:
  // Whether somebody wants the gradient of input i; when not, the node need not compute it.
  bool wants(int i) const;
  // Adds g to the gradient of input i. The shape must be that of the input. Takes g over: the caller must not write to it again.
  // Ignored when nobody wants it. An input that the node was not recorded with is an AutogradError, here as in the others.
  void add(int i, Tensor g);
  // For input i a leaf with a gradient block already in place (flat parameters): that block (f32, dense). The node may add its share to
  // it itself instead of calling add, and must then call done(i). Absent otherwise. A node that can as well write as add passes
  // `forgotten`: when it comes back true the block counts as zero but was not cleared, so the node must write.
  Tensor accumulator(int i, bool* forgotten = nullptr) const;
  void done(int i);

 private:
  friend class Engine;
  void serve(std::size_t index);
  Gradients(class Engine& engine, Node& node) : engine_(engine), node_(node), served_(node.inputs.size(), false) {}
  class Engine& engine_;
  Node& node_;
  std::vector<bool> served_;
};

// Whether ops record now: no NoGrad guard is alive on this thread.
bool grad_enabled();

class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

// True when recording is on and one of the tensors wants a gradient: the op must build a Node.
bool needs_grad(std::initializer_list<const Tensor*> inputs);

// Lets gradients of `shadow` (a low-precision copy of a parameter) flow to `leaf`, in f32.
void share_gradient(const Tensor& shadow, const Tensor& leaf);

// Puts y, fresh from a kernel, on the tape as the output of `node` with these inputs (absent ones allowed). Returns y.
Tensor record(Tensor y, std::shared_ptr<Node> node, std::initializer_list<const Tensor*> inputs);
Tensor record(Tensor y, std::shared_ptr<Node> node, const std::vector<Tensor>& inputs);

// Adds d loss / d leaf to the gradient of every leaf that `loss` (one element) depends on.
void backward(const Tensor& loss);
// The same from an upstream gradient of any shape, floating: adds the vector-Jacobian product.
void backward(const Tensor& y, const Tensor& dy);

// The gradient block of this leaf (set_grad) counts as zero from now on without being cleared: what comes first in backward is written over
// it, which saves a pass over memory each for clearing and for reading. settle_grad() clears it if nothing has come. In between, only
// backward may touch the block. A gradient that backward made itself is dropped instead, and stays absent until the next one comes.
void forget_grad(const Tensor& leaf);
void settle_grad(const Tensor& leaf);

// Called once per backward when the gradient of this leaf is complete and no op that still runs backward needs the leaf: the hook may
// change the leaf's elements and take its gradient away. Not called where there is no gradient, because none came and none stood there.
// One hook per leaf; an empty function removes it.
void on_grad_ready(const Tensor& leaf, std::function<void(const Tensor& leaf)> hook);

// Runs fn(inputs) without recording and recomputes it during backward: activations inside cost memory only while they are needed.
// Random numbers are functions of names and sample ids, so the second run repeats the first; batch_norm moves its running statistics in the
// first only. Leaves used inside fn (parameters) get their gradients as usual, and hooks wait for the last segment that uses a leaf; every
// other tensor that wants a gradient must be among the inputs, unless fn only uses it under NoGrad. Costs nothing in backward when neither
// an input nor a leaf inside wants a gradient.
Tensor checkpoint(const std::function<Tensor(const std::vector<Tensor>&)>& fn, const std::vector<Tensor>& inputs);

}  // namespace twinlens
