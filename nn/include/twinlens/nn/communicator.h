#pragma once
// Communicator: what ranks say to each other. The number of processes is a parameter everywhere, also while it is one.
// Bodies: solo (one rank), threads (ranks are threads of one process, for tests). MPI and NCCL come later.
//
// Calls are collective: every rank makes the same calls in the same order. Reductions add in rank order, so results do not depend on
// timing. Buffers are dense f32 unless said otherwise.

#include <functional>
#include <memory>

#include "twinlens/core/tensor.h"

namespace twinlens {

class Communicator {
 public:
  enum class Op { sum, max };
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void all_reduce(Tensor& x, Op op) = 0;       // in place
  virtual Tensor all_gather(const Tensor& x) = 0;      // (n, ...) -> (size * n, ...), rank order; any dtype
  virtual Tensor reduce_scatter(const Tensor& x) = 0;  // (size * n, ...) -> own (n, ...), summed
  virtual void broadcast(Tensor& x, int root) = 0;     // in place
  virtual void send_recv(const Tensor& send, int to, Tensor& receive, int from) = 0;
  virtual void barrier() = 0;
};

std::unique_ptr<Communicator> solo_communicator();

// Runs body(communicator) on `ranks` threads and joins them. The first exception is rethrown after all have ended.
void run_thread_ranks(int ranks, const std::function<void(Communicator&)>& body);

// all_gather with a gradient: each rank gets the sum of what all ranks say about its rows.
Tensor gather_rows(const Tensor& x, Communicator& communicator);

}  // namespace twinlens
