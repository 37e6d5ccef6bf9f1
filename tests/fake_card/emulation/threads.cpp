#include "tests/fake_card/emulation/threads.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "twinlens/kernels/error.h"

namespace twinlens::emulated {

Index3 thread_index, block_index, block_size, grid_size;

namespace {

namespace context = boost::context;

constexpr std::size_t kStackBytes = 256 * 1024, kMostThreads = 1024;

enum class State : std::uint8_t { ready, at_block_barrier, in_warp, ended };

// What a lane waits for.
struct Meeting {
  unsigned mask = 0, there = 0;
};

struct Copy {
  void* to;
  const void* from;
};

struct Thread {
  context::fiber self, caller;
  State state = State::ended;
  Index3 index;
  Meeting meeting;
  std::uint64_t meetings = 0;
  std::deque<std::vector<Copy>> copies;  // groups; the last one is open
};

// Two memories in turn: who gives to the next meeting may be ahead of who still reads from this one, but not by two.
struct Warp {
  Given given[2];
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // fibers are kept from block to block
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  const std::function<void()>* body = nullptr;
  std::size_t count = 0, current = 0;
};

Block& only_block = *new Block();  // never destroyed: nor are its fibers
Block& block() { return only_block; }

std::mt19937& turns() {
  static std::mt19937 random;
  return random;
}

[[noreturn]] void fail(const std::string& what) {
  throw DeviceError("emulated card: " + what + "; block " + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) +
                    "; look at the kernel that the test launches");
}

Thread& current() { return *block().threads[block().current]; }

void give_way(State state) {
  Thread& thread = current();
  thread.state = state;
  thread.caller = std::move(thread.caller).resume();
}

std::unique_ptr<Thread> make_thread() {
  auto thread = std::make_unique<Thread>();
  Thread* const own = thread.get();
  thread->self = context::fiber(std::allocator_arg, context::fixedsize_stack(kStackBytes), [own](context::fiber&& caller) {
    own->caller = std::move(caller);
    for (;;) {
      (*block().body)();
      give_way(State::ended);
    }
    return std::move(own->caller);
  });
  return thread;
}

void continue_thread(std::size_t number) {
  block().current = number;
  Thread& thread = current();
  thread_index = thread.index;
  thread.self = std::move(thread.self).resume();
}

// Lanes that have all met go on.
void release_warp(std::size_t first, std::size_t lanes) {
  for (std::size_t i = 0; i < lanes; ++i) {
    const Thread& thread = *block().threads[first + i];
    if (thread.state != State::in_warp) continue;
    unsigned there = 0;
    for (std::size_t k = 0; k < lanes; ++k) {
      const Thread& other = *block().threads[first + k];
      if (other.state == State::in_warp && other.meeting.mask == thread.meeting.mask) there |= 1U << k;
    }
    if ((there & thread.meeting.mask) != thread.meeting.mask) continue;
    const unsigned mask = thread.meeting.mask;
    for (std::size_t k = 0; k < lanes; ++k) {
      Thread& other = *block().threads[first + k];
      if (other.state == State::in_warp && other.meeting.mask == mask) other.state = State::ready;
    }
  }
}

std::vector<std::size_t> shuffled(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::shuffle(order.begin(), order.end(), turns());
  return order;
}

// Until every lane has ended or waits for the block.
void run_warp(std::size_t warp, const std::vector<std::size_t>& lane_order) {
  const std::size_t first = warp * kLanes, lanes = std::min<std::size_t>(kLanes, block().count - first);
  for (bool moved = true; moved;) {
    moved = false;
    for (const std::size_t i : lane_order) {
      if (i >= lanes || block().threads[first + i]->state != State::ready) continue;
      continue_thread(first + i);
      moved = true;
    }
    release_warp(first, lanes);
    for (std::size_t i = 0; i < lanes; ++i) moved = moved || block().threads[first + i]->state == State::ready;
  }
  for (std::size_t i = 0; i < lanes; ++i) {
    if (block().threads[first + i]->state == State::in_warp) {
      block().threads.clear();  // they stand in the middle of a kernel
      fail("thread " + std::to_string(first + i) + " waits for lanes of its warp that do not come");
    }
  }
}

void run_block(const std::vector<std::size_t>& warp_order, const std::vector<std::size_t>& lane_order) {
  Block& b = block();
  std::fill(b.shared.begin(), b.shared.end(), static_cast<unsigned char>(0xFF));
  for (std::size_t i = 0; i < b.count; ++i) {
    const auto x = static_cast<unsigned>(i);
    b.threads[i]->index = {x % block_size.x, x / block_size.x % block_size.y, x / block_size.x / block_size.y};
    b.threads[i]->state = State::ready;
    b.threads[i]->meetings = 0;
    b.threads[i]->copies.assign(1, {});
  }
  for (bool moved = true; moved;) {
    for (const std::size_t warp : warp_order) run_warp(warp, lane_order);
    moved = false;
    for (std::size_t i = 0; i < b.count; ++i) {
      if (b.threads[i]->state != State::at_block_barrier) continue;
      b.threads[i]->state = State::ready;
      moved = true;
    }
  }
}

}  // namespace

Card& card() {
  static Card one;
  return one;
}

void* dynamic_shared() { return block().shared.data(); }

void wait_for_block() { give_way(State::at_block_barrier); }

int lane() { return static_cast<int>(block().current % kLanes); }

const Given& exchange(unsigned mask, const void* data, std::size_t bytes) {
  Thread& thread = current();
  Given& given = block().warps[block().current / kLanes].given[thread.meetings++ % 2];
  std::memcpy(given.bytes[lane()], data, bytes);
  thread.meeting.mask = mask;
  give_way(State::in_warp);
  return given;
}

void copy_later(void* to, const void* from) {
  if ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) % 16 != 0) __builtin_trap();  // as a card does
  current().copies.back().push_back({to, from});
}

void end_group_of_copies() { current().copies.emplace_back(); }

void finish_groups_but(int left) {
  auto& groups = current().copies;
  while (groups.size() > static_cast<std::size_t>(left) + 1) {
    for (const Copy& copy : groups.front()) {
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, 16);
      } else {
        std::memcpy(copy.to, copy.from, 16);
      }
    }
    groups.pop_front();
  }
}

Launch::Launch(Index3 grid, Index3 block, std::size_t shared_bytes, const void*)
    : grid_(grid), block_(block), shared_bytes_(shared_bytes) {}

void Launch::run(const std::function<void()>& body) const {
  Block& b = block();
  b.count = std::size_t{block_.x} * block_.y * block_.z;
  grid_size = grid_;
  block_size = block_;
  block_index = {0, 0, 0};
  if (b.count == 0 || b.count > kMostThreads) fail("a block of " + std::to_string(b.count) + " threads; a card takes 1 to 1024");
  if (grid_.x == 0 || grid_.y == 0 || grid_.z == 0) fail("a grid without blocks");
  if (grid_.x > 0x7FFFFFFFU || grid_.y > 65535 || grid_.z > 65535) fail("a grid larger than a card takes");
  if (shared_bytes_ > static_cast<std::size_t>(card().shared_bytes)) {
    fail(std::to_string(shared_bytes_) + " bytes of shared memory, of " + std::to_string(card().shared_bytes) + " that a block may have");
  }
  while (b.threads.size() < b.count) b.threads.push_back(make_thread());
  b.warps.resize((b.count + kLanes - 1) / kLanes);
  b.shared.resize(shared_bytes_);
  b.body = &body;
  const std::vector<std::size_t> warp_order = shuffled(b.warps.size()), lane_order = shuffled(kLanes);
  const bool backwards = turns()() % 2 == 0;
  const std::uint64_t blocks = std::uint64_t{grid_.x} * grid_.y * grid_.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t at = backwards ? blocks - 1 - i : i;
    block_index = {static_cast<unsigned>(at % grid_.x), static_cast<unsigned>(at / grid_.x % grid_.y),
                   static_cast<unsigned>(at / grid_.x / grid_.y)};
    run_block(warp_order, lane_order);
  }
}

}  // namespace twinlens::emulated
