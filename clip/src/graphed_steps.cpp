#include "clip/src/graphed_steps.h"

#include <fmt/format.h>

#include "twinlens/core/autograd.h"
#include "twinlens/kernels/error.h"
#include "twinlens/kernels/scope.h"
#include "twinlens/kernels/trace.h"

namespace twinlens {
namespace {

// All that a launch may depend on. Batches with one key differ in values only.
std::vector<std::int64_t> key_of(const StepInputs& in) {
  const SequenceOffsets& offsets = in.captions.offsets;
  const auto count = [](const Tensor& x) { return x.defined() ? x.count() : -1; };
  return {in.pixels.size(0),          in.captions.ids.count(), offsets.sequences(),   offsets.longest(),
          in.captions.packed ? 1 : 0, count(in.caption_row),   count(in.patches.rows)};
}

// What `to` holds becomes what `from` holds.
void overwrite(const Tensor& to, const Tensor& from) {
  if (to.defined()) Tensor(to).copy_(from);
}

}  // namespace

GraphedSteps::GraphedSteps(Device device) : device_(device), pool_(current_stream(device)) {}

GraphedSteps::~GraphedSteps() {
  try {
    synchronize(current_stream(device_));
  } catch (const Error&) {  // of a card that has failed nothing is left to wait for; said where it happened
  }
}

GraphedSteps::Bucket& GraphedSteps::bucket_of(const StepInputs& inputs) {
  const NoGrad guard;
  const Scope scope("inputs");
  const auto [at, is_new] = buckets_.try_emplace(key_of(inputs));
  StepInputs& own = at->second.inputs;
  if (!pixels_.defined()) pixels_ = empty(inputs.pixels.shape(), inputs.pixels.dtype(), device_);
  pixels_.copy_(inputs.pixels);
  if (is_new) {
    StepInputs rest = inputs;
    rest.pixels = pixels_;
    own = rest.to(device_);
    return at->second;
  }
  overwrite(own.patches.rows, inputs.patches.rows);
  overwrite(own.patches.places, inputs.patches.places);
  overwrite(own.captions.ids, inputs.captions.ids);
  overwrite(own.captions.positions, inputs.captions.positions);
  overwrite(own.captions.last, inputs.captions.last);
  overwrite(own.captions.offsets.tensor(), inputs.captions.offsets.tensor());
  own.captions.offsets = SequenceOffsets(inputs.captions.offsets.host(), own.captions.offsets.tensor());
  overwrite(own.caption_row, inputs.caption_row);
  overwrite(own.caption_ids, inputs.caption_ids);
  return at->second;
}

void GraphedSteps::queue_plainly(const Bucket& bucket, const Work& work) {
  {
    const MemoryPool::Use use(pool_);
    work(bucket.inputs);
  }
  ++counts_.plain;
  // The next step may lie where this one's memory was.
  if (const std::size_t left = pool_.taken(); left > 0) {
    throw DeviceError(fmt::format("graph: a step keeps {} bytes when it is over; cuda; leave --cuda-graphs out", left));
  }
}

bool GraphedSteps::record(Bucket& bucket, const Work& work) {
  if (graphs_ == kMostGraphs || bucket.tries == kMostTries) return false;
  ++bucket.tries;
  std::optional<Graph> graph = Graph::record(pool_, [&] { work(bucket.inputs); });
  if (!graph.has_value()) return false;
  bucket.graph = std::move(*graph);
  bucket.has_graph = true;
  ++graphs_;
  ++counts_.recorded;
  return true;
}

void GraphedSteps::queue(const StepInputs& inputs, const Work& work, bool look) {
  Bucket& bucket = bucket_of(inputs);
  const bool plain = look || tracing() || !bucket.seen;
  bucket.seen = true;
  if (plain || (!bucket.has_graph && !record(bucket, work))) return queue_plainly(bucket, work);
  bucket.graph.launch();
  ++counts_.launched;
}

std::string GraphedSteps::text() const {
  return fmt::format("graphs: {} of {} batch sizes, launched {} times; {} steps were queued kernel by kernel", graphs_, buckets_.size(),
                     counts_.launched, counts_.plain);
}

}  // namespace twinlens
