#pragma once
// GraphedSteps: steps on a card that are recorded as graphs and queued again (--cuda-graphs; docs/decisions/0018-graphs.md).
//
// The inputs of a step lie in memory that belongs to their sizes: it is filled, in stream order, before the step is queued. The first step
// of its sizes is queued kernel by kernel, the second one is recorded and launched, those after it are launched. All take their memory from
// one pool, so that a step that is not a graph needs no more than those that are, and finds the same addresses.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "clip/src/step_inputs.h"

#include "twinlens/kernels/graph.h"

namespace twinlens {

class GraphedSteps {
 public:
  static constexpr std::size_t kMostGraphs = 24;  // batches of more sizes than these are queued kernel by kernel
  static constexpr int kMostTries = 4;            // to record one: each that ends for want of memory brings some

  explicit GraphedSteps(Device device);
  ~GraphedSteps();  // waits for the card
  GraphedSteps(const GraphedSteps&) = delete;
  GraphedSteps& operator=(const GraphedSteps&) = delete;

  using Work = std::function<void(const StepInputs& on_card)>;
  // Queues `work` on what `inputs` (from step_inputs) hold. It must queue the same whatever they hold, look at nothing that the card does,
  // and leave no tensor behind that was not there before. `look`: queued kernel by kernel this time, and may look.
  void queue(const StepInputs& inputs, const Work& work, bool look);

  struct Counts {
    std::int64_t plain = 0, recorded = 0, launched = 0;  // (one that is recorded is launched as well)
  };
  const Counts& counts() const { return counts_; }
  std::string text() const;  // one line for a log

 private:
  struct Bucket {
    StepInputs inputs;
    Graph graph;
    bool seen = false, has_graph = false;
    int tries = 0;
  };
  Bucket& bucket_of(const StepInputs& inputs);
  bool record(Bucket& bucket, const Work& work);
  void queue_plainly(const Bucket& bucket, const Work& work);

  Device device_;
  MemoryPool pool_;
  Tensor pixels_;  // of all buckets
  std::map<std::vector<std::int64_t>, Bucket> buckets_;
  std::size_t graphs_ = 0;
  Counts counts_;
};

}  // namespace twinlens
