#pragma once
// FlatParameters: values, gradients and optimizer moments of a model in one block each, so that zeroing is one memset, the norm one
// reduction, the optimizer one kernel and an all-reduce works on slices. Parameters become views of the blocks.
//
// Built once after the model is on its device and initialised; the model must not be moved or copied afterwards (views stay valid, the
// Parameter structs may not be reallocated). A tensor that stands under several names stays one, with one segment, of its first name; two
// tensors that merely share elements, or a name, are refused. Each parameter has a version of its own: a hook (on_grad_ready) may write to
// one while backward still reads others. Who writes to a whole block says so with mark_written(). A model belongs to the one built last:
// what an earlier one holds is nobody's weights any more.

#include <functional>
#include <string>
#include <vector>

#include "twinlens/kernels/adamw.h"
#include "twinlens/nn/module.h"

namespace twinlens {

struct Segment {
  std::string name;
  std::int64_t offset = 0;  // elements; a multiple of 64 (256 bytes)
  std::int64_t size = 0;
  float lr_factor = 1.0F;
  bool decay = true;
  bool frozen = false;
};

// The rule of open_clip's main branch: weight decay for parameters of two or more dimensions, except transformers' positional and class
// embeddings. Its release 3.3.0 decays positional embeddings, too.
bool has_weight_decay(const std::string& name, const Tensor& value);

class FlatParameters {
 public:
  // - Each parameter becomes a new leaf: gradients, on_grad_ready() hooks and the copies of round_weights() from before are gone.
  // - Frozen parameters (requires_grad false) get a segment and no update.
  // - freeze() may be called later: the next call that clears gradients or takes a step follows it. Unfreezing needs the gradient block.
  // - `with_shadow` adds a bf16 copy of the weights, which products read.
  // - `with_gradients` false: no gradient block. Each parameter has a gradient of its own, which can be let go (AdamWInBackward).
  FlatParameters(const Collector& model, bool with_shadow, bool with_gradients = true);

  const std::vector<Segment>& segments() const { return segments_; }
  // Changes the learning-rate factor of every segment (layer decay).
  void set_lr_factors(const std::function<float(const std::string& name)>& factor);

  Tensor values;     // (n) f32
  Tensor gradients;  // (n) f32 or absent
  Tensor moment1;    // (n) f32; first moment (AdamW) or momentum buffer (SGD)
  Tensor moment2;    // (n) f32; second moment
  Tensor shadow;     // (n) bf16 or absent

  // Clears the block, and binds it again where set_grad() has taken a parameter's gradient out of it. Whoever looks at the block after a
  // set_grad() without that gets an AutogradError that names the parameter.
  void zero_gradients();
  // The same without a pass over memory: what the next backward brings is written over what stands there (forget_grad). `gradients` is
  // whole again when a member below, a step of an optimizer, or settle_gradients() itself has cleared what nothing was written to.
  void forget_gradients();
  void settle_gradients() const;
  // Takes note of parameters that want gradients now and did not, or the other way round. Those above but settle_gradients() do, and the
  // optimizers.
  void follow_freezing();
  // Throws, in the name of `op`, when there is no gradient block.
  void need_gradients(const char* op) const;
  // Values (and the shadow) were written by a kernel, of all parameters or of those of segment i: a tape recorded before must not run.
  void mark_written() const;
  void mark_written(std::size_t i) const;
  // Copies values into the shadow, after they were written. load_state_dict() and the optimizers do it themselves.
  void refresh_shadow();
  // Global 2-norm of all gradients (settled), read back to the host.
  double gradient_norm() const;
  // That of the parameters whose name satisfies `wanted`.
  double gradient_norm(const std::function<bool(const std::string& name)>& wanted) const;

  // Segments as kernels see them, in a block on the device.
  const OptimizerSegment* segment_table() const;
  std::int64_t segment_count() const { return static_cast<std::int64_t>(segments_.size()); }
  // Segment i in such a block, as the only one of a block that is the parameter alone: its offset is 0.
  const OptimizerSegment* segment_alone(std::size_t i) const { return segment_table() + segments_.size() + i; }
  // The parameters by segment; undefined where they are frozen.
  const std::vector<Tensor>& leaves() const { return leaves_; }

 private:
  std::vector<std::size_t> lay_out(const Collector& model);
  void upload_table();
  bool has_its_part(std::size_t i) const;  // of the gradient block, as its gradient
  void bind_gradients();
  std::vector<Segment> segments_;
  std::vector<Tensor> parts_, shadows_;  // the parameters by segment
  std::vector<Tensor> leaves_;
  Tensor table_;
};

}  // namespace twinlens
