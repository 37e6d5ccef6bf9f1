#include "twinlens/nn/communicator.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "twinlens/core/autograd.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

class Solo final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(Tensor&, Op) override {}
  Tensor all_gather(const Tensor& x) override { return x; }
  Tensor reduce_scatter(const Tensor& x) override { return x; }
  void broadcast(Tensor&, int) override {}
  void send_recv(const Tensor& send, int, Tensor& receive, int) override { receive.copy_(send); }
  void barrier() override {}
};

// A board on which every rank pins one tensor; reads happen between two barriers.
struct Board {
  explicit Board(int n) : ranks(n), pinned(static_cast<std::size_t>(n)) {}
  const int ranks;
  std::vector<Tensor> pinned;

  void wait() {
    std::unique_lock lock(mutex);
    if (failed) throw Error("communicator: another rank failed; thread ranks; see its error");
    const std::uint64_t round = rounds;
    if (++waiting == ranks) {
      waiting = 0;
      ++rounds;
      changed.notify_all();
      return;
    }
    changed.wait(lock, [&] { return rounds != round || failed; });
    if (rounds == round) throw Error("communicator: another rank failed; thread ranks; see its error");
  }
  void fail() {
    const std::lock_guard lock(mutex);
    failed = true;
    changed.notify_all();
  }

 private:
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  std::uint64_t rounds = 0;
  bool failed = false;
};

class ThreadRank final : public Communicator {
 public:
  ThreadRank(Board& board, int rank) : board_(board), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return board_.ranks; }

  void all_reduce(Tensor& x, Op op) override {
    const NoGrad guard;
    exchange(x.clone(), [&](const std::vector<Tensor>& all) {
      Tensor total = all[0];
      for (std::size_t r = 1; r < all.size(); ++r) total = op == Op::sum ? add(total, all[r]) : maximum(total, all[r]);
      x.copy_(total);
    });
  }
  Tensor all_gather(const Tensor& x) override {
    const NoGrad guard;
    Tensor out;
    exchange(dense(x), [&](const std::vector<Tensor>& all) {
      check_same_shape("all_gather", x, all);
      out = concat(all, 0);
    });
    return out;
  }
  Tensor reduce_scatter(const Tensor& x) override {
    const NoGrad guard;
    check_divisible(x);
    Tensor out;
    exchange(dense(x), [&](const std::vector<Tensor>& all) {
      const std::int64_t n = x.size(0) / size();
      out = all[0].slice(0, rank_ * n, (rank_ + 1) * n).clone();
      for (std::size_t r = 1; r < all.size(); ++r) out = add(out, all[r].slice(0, rank_ * n, (rank_ + 1) * n));
    });
    return out;
  }
  void broadcast(Tensor& x, int root) override {
    const NoGrad guard;
    check_rank("broadcast", root);
    exchange(x.clone(), [&](const std::vector<Tensor>& all) { x.copy_(all[static_cast<std::size_t>(root)]); });
  }
  void send_recv(const Tensor& send, int to, Tensor& receive, int from) override {
    const NoGrad guard;
    check_rank("send_recv", to);  // every rank reads from its sender; the pair (to, from) is a permutation
    check_rank("send_recv", from);
    exchange(dense(send), [&](const std::vector<Tensor>& all) { receive.copy_(all[static_cast<std::size_t>(from)]); });
  }
  void barrier() override { board_.wait(); }

 private:
  // On a card every rank has a stream of its own: what is read there must be done, and done being read, before the ranks go on.
  template <class F>
  void exchange(const Tensor& mine, F read) {
    board_.pinned[static_cast<std::size_t>(rank_)] = mine;
    settle(mine);
    board_.wait();
    read(board_.pinned);
    settle(mine);
    board_.wait();
  }
  static void settle(const Tensor& x) {
    if (x.device().is_cuda()) synchronize(current_stream(x.device()));
  }
  void check_rank(const char* call, int rank) const {
    if (rank < 0 || rank >= size()) {
      throw ConfigError(std::string(call) + ": there is no rank " + std::to_string(rank) + " of " + std::to_string(size()) +
                        "; communicator; give one from 0 to below size()");
    }
  }
  static void check_same_shape(const char* call, const Tensor& mine, const std::vector<Tensor>& all) {
    for (std::size_t r = 0; r < all.size(); ++r) {
      if (all[r].shape() == mine.shape()) continue;
      throw ShapeError(std::string(call) + ": this rank has " + to_string(mine.shape()) + ", rank " + std::to_string(r) + " has " +
                       to_string(all[r].shape()) + "; communicator; give the same shape on every rank");
    }
  }
  void check_divisible(const Tensor& x) const {
    if (x.size(0) % size() != 0) {
      throw ShapeError("reduce_scatter: " + std::to_string(x.size(0)) + " rows for " + std::to_string(size()) +
                       " ranks; communicator; give a multiple");
    }
  }
  Board& board_;
  int rank_;
};

struct GatherNode final : Node {
  Communicator* communicator = nullptr;
  const char* name() const override { return "gather_rows"; }
  void backward(const Tensor& dy, Gradients& grads) override { grads.add(0, communicator->reduce_scatter(dy)); }
  void release() override {}
};

}  // namespace

std::unique_ptr<Communicator> solo_communicator() { return std::make_unique<Solo>(); }

void run_thread_ranks(int ranks, const std::function<void(Communicator&)>& body) {
  if (ranks < 1 || !body) {
    throw ConfigError("run_thread_ranks: " + std::to_string(ranks) + " ranks" + (body ? "" : " without a body") +
                      "; its arguments; give at least 1 and what they do");
  }
  Board board(ranks);
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  const auto fail = [&](std::exception_ptr why) {
    {
      const std::lock_guard lock(mutex);
      if (first == nullptr) first = std::move(why);
    }
    board.fail();
  };
  const auto run_rank = [&](int r) {
    try {
      ThreadRank communicator(board, r);
      body(communicator);
    } catch (...) {
      fail(std::current_exception());
    }
  };
  try {
    for (int r = 0; r < ranks; ++r) threads.emplace_back(run_rank, r);
  } catch (const std::system_error& e) {
    fail(std::make_exception_ptr(ConfigError("run_thread_ranks: the system starts no thread for rank " + std::to_string(threads.size()) +
                                             " of " + std::to_string(ranks) + " (" + e.what() +
                                             "); ranks; give fewer, or raise ulimit -u and -v")));
  }
  for (std::thread& t : threads) t.join();
  if (first != nullptr) std::rethrow_exception(first);
}

Tensor gather_rows(const Tensor& x, Communicator& communicator) {
  if (communicator.size() == 1) return x;
  Tensor all = communicator.all_gather(x.detach());
  if (!needs_grad({&x})) return all;
  auto node = std::make_shared<GatherNode>();
  node->communicator = &communicator;
  return record(std::move(all), std::move(node), {&x});
}

}  // namespace twinlens
