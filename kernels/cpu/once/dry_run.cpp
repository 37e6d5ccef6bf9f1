#include "twinlens/kernels/dry_run.h"

#include <algorithm>
#include <map>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

thread_local DryRun* running = nullptr;

// Addresses without memory: pages come into being when they are touched, which only small things written by the host do.
constexpr std::size_t kMostAddresses = std::size_t{1} << 40, kLeastAddresses = std::size_t{1} << 32;

int index_of(Device device) { return device.is_cpu() ? 0 : device.index + 1; }

}  // namespace

struct DryRun::State {
  char* begin = nullptr;
  std::size_t size = 0, used = 0;
  std::map<std::size_t, std::vector<void*>> given_back;  // by capacity
  struct Count {
    std::size_t bytes = 0, peak = 0;
  };
  std::map<int, Count> counts;

  State() {
    for (size = kMostAddresses; size >= kLeastAddresses; size /= 2) {
      void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == MAP_FAILED) continue;
      begin = static_cast<char*>(at);
      return;
    }
    throw DeviceError("dry run: the system gives no address space; memory planning; see ulimit -v and vm.overcommit_memory");
  }
  ~State() { munmap(begin, size); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

DryRun::DryRun() : state_(std::make_unique<State>()) { running = this; }
DryRun::~DryRun() { running = nullptr; }
DryRun* DryRun::current() { return running; }

std::size_t DryRun::bytes(Device device) const { return state_->counts[index_of(device)].bytes; }
std::size_t DryRun::peak_bytes(Device device) const { return state_->counts[index_of(device)].peak; }

void* DryRun::take(Device device, std::size_t capacity) {
  void* data = nullptr;
  std::vector<void*>& same = state_->given_back[capacity];
  if (!same.empty()) {
    data = same.back();
    same.pop_back();
  } else {
    if (capacity > state_->size - state_->used)
      throw DeviceError("out of memory: " + std::to_string(capacity) + " bytes more than the " + std::to_string(state_->used) +
                        " of a dry run do not fit its address space; lower --batch-size");
    data = state_->begin + state_->used;
    state_->used += capacity;
  }
  State::Count& count = state_->counts[index_of(device)];
  count.bytes += capacity;
  count.peak = std::max(count.peak, count.bytes);
  return data;
}

void DryRun::give_back(void* data, Device device, std::size_t capacity) {
  state_->given_back[capacity].push_back(data);
  state_->counts[index_of(device)].bytes -= capacity;
}

}  // namespace twinlens
