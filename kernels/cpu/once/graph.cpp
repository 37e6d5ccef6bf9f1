#include "twinlens/kernels/graph.h"

#include <utility>

#include "kernels/cpu/once/device_memory.h"
#include "kernels/cpu/once/recording.h"

namespace twinlens {
namespace {

thread_local MemoryPool* used = nullptr;
thread_local std::vector<std::shared_ptr<const void>>* kept = nullptr;  // by the graph that is being recorded

// Ends the recording, whatever happens.
class Recording {
 public:
  Recording(Stream& stream, std::vector<std::shared_ptr<const void>>& keeps) : stream_(stream) {
    graph_begin(stream);
    kept = &keeps;
  }
  ~Recording() {
    kept = nullptr;
    if (!ended_) graph_abandon(stream_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  void* end() {
    ended_ = true;
    return graph_end(stream_);
  }

 private:
  Stream& stream_;
  bool ended_ = false;
};

}  // namespace

MemoryPool::Use::Use(MemoryPool* pool) : before_(std::exchange(used, pool)) {}
MemoryPool::Use::~Use() { used = before_; }

MemoryPool* MemoryPool::current(const Stream& stream) { return used != nullptr && &used->stream_ == &stream ? used : nullptr; }

Graph::Graph(Graph&& other) noexcept { *this = std::move(other); }

Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(stream_, other.stream_);
  std::swap(native_, other.native_);
  std::swap(kept_, other.kept_);
  return *this;
}

Graph::~Graph() {
  if (native_ != nullptr) graph_destroy(native_);
}

std::optional<Graph> Graph::record(MemoryPool& pool, const std::function<void()>& work) {
  Graph graph;
  graph.stream_ = &pool.stream_;
  const MemoryPool::Use use(pool);
  try {
    Recording recording(pool.stream_, graph.kept_);
    work();
    graph.native_ = recording.end();
  } catch (const NoBlock&) {
    return std::nullopt;
  }
  return graph;
}

void Graph::launch() const { graph_launch(native_, *stream_); }

void Graph::keep(std::shared_ptr<const void> read) {
  if (kept != nullptr) kept->push_back(std::move(read));
}

bool Graph::recording() { return kept != nullptr; }

}  // namespace twinlens
