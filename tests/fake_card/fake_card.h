#pragma once
// A card that is not there: in a test program of a build without CUDA it stands in for kernels/cuda/memory.cpp. Its memory is the host's.
// A stream is a queue whose work is done when somebody waits for it and not before: as late as a card may be with it. So what reads too
// early reads what was there before, and what writes too early spoils what was to be copied.
//
// Kernels do nothing, but for those that a test gives a body.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace twinlens::test {

inline constexpr std::size_t kFakeCardBytes = std::size_t{1} << 33;

// A kernel as it was queued. Bytes between the members of its arguments are zero.
struct Call {
  std::string kernel;
  std::vector<unsigned char> args;  // empty: of a kernel without a body
  bool operator==(const Call&) const = default;
};

struct FakeCard {
  std::size_t capacity = kFakeCardBytes;
  std::size_t bytes = 0;         // taken now
  bool frees_late = false;       // what is freed counts as taken until the card reclaims it
  std::size_t freed = 0;         // of `bytes`, so
  std::int64_t allocations = 0;  // asked of the card
  std::int64_t pinned_allocations = 0;
  std::int64_t waits = 0;            // times that the host waited for all that a stream had
  std::int64_t event_waits = 0;      // times that it waited for an event that was not reached
  std::int64_t pageable_copies = 0;  // copies from memory that is not pinned: a card's copy of it waits for the stream
  std::int64_t kernels = 0;
  std::int64_t graphs = 0, graph_launches = 0;  // recorded to the end, and launched
  std::vector<Call>* calls = nullptr;           // where they are noted, when somebody wants to know
  // By name: called when the kernel is queued, gives what is done when its turn comes.
  std::map<std::string, std::function<std::function<void()>(const void* args)>> bodies;
};

FakeCard& fake_card();

// Whether the compiler can tell what is between members.
#if __has_builtin(__builtin_clear_padding)
inline constexpr bool kClearsPadding = true;
template <class Args>
void clear_padding(Args* args) {
  __builtin_clear_padding(args);
}
#else
inline constexpr bool kClearsPadding = false;
template <class Args>
void clear_padding(Args*) {}
#endif

// The body `f(args)` for the kernel of Args, until the test ends.
template <class Args, class F>
void set_fake_kernel(F f) {
  fake_card().bodies[Args::kName] = [f](const void* args) {
    if (fake_card().calls != nullptr) {
      Args copy = *static_cast<const Args*>(args);
      clear_padding(&copy);
      const auto* bytes = reinterpret_cast<const unsigned char*>(&copy);
      fake_card().calls->push_back({Args::kName, {bytes, bytes + sizeof copy}});
    }
    return [f, copy = *static_cast<const Args*>(args)] { f(copy); };
  };
}

// The CPU's kernel as the card's.
template <class Args, class I>
void set_fake_kernel_of() {
  set_fake_kernel<Args>([](const Args& args) { kernel(I{}, args); });
}

}  // namespace twinlens::test
