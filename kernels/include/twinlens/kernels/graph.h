#pragma once
// Graph: work of a card's stream that was recorded once and is queued again as one piece (CUDA graphs): the same kernels with the same
// arguments, so the same addresses, in the same order. What differs between two launches is what lies at those addresses.
//
// So memory that the recorded work takes must be its own for as long as the graph is there: a MemoryPool. Several graphs may share one, as
// far as none runs while another does and nothing that one leaves in it is wanted after another. What they read that others might let go
// is kept with Graph::keep. The host must not take part: a copy from or to its memory while a graph is recorded is an error.

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "twinlens/kernels/stream.h"

namespace twinlens {

// Memory for the work of one stream that is recorded or recorded again. While it is in use, what this thread allocates on that stream comes
// from its blocks, and goes back to them. Blocks are chosen by size and address: equal work on equal blocks gets equal addresses.
class MemoryPool {
 public:
  explicit MemoryPool(Stream& stream);
  ~MemoryPool();  // its blocks become the stream's
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  class Use {
   public:
    explicit Use(MemoryPool& pool) : Use(&pool) {}
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    // For what outlives the work that asks for it: memory as if no pool were in use.
    static Use none() { return Use(nullptr); }

   private:
    explicit Use(MemoryPool* pool);
    MemoryPool* before_;
  };

  // That no other pool has, before or after: memory may outlive its pool.
  std::uint64_t number() const { return number_; }
  // Bytes that were taken from it and not given back.
  std::size_t taken() const;
  // In use by this thread for work on `stream`; null: none is.
  static MemoryPool* current(const Stream& stream);

 private:
  friend class Graph;
  Stream& stream_;
  std::uint64_t number_;
};

class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;
  ~Graph();  // what was launched must be done

  // Calls `work` with `pool` in use, and keeps what it queues on the pool's stream instead of having it done. Absent when the pool had no
  // block for something that `work` asked for: no memory is taken from the card while work is recorded. Work that is done with the pool in
  // use, and not recorded, brings what was missing. Errors of `work` come out of it.
  static std::optional<Graph> record(MemoryPool& pool, const std::function<void()>& work);
  void launch() const;

  // What the work that this thread records reads, and others may let go: kept as long as the graph. Without a recording nothing happens.
  static void keep(std::shared_ptr<const void> read);
  // Whether this thread records.
  static bool recording();

 private:
  Stream* stream_ = nullptr;
  void* native_ = nullptr;  // cudaGraphExec_t
  std::vector<std::shared_ptr<const void>> kept_;
};

}  // namespace twinlens
