#include "kernels/cpu/once/staging.h"

#include <cstring>
#include <utility>

namespace twinlens {

Staging::Staging(std::size_t bytes) : memory_(allocate_pinned(bytes)) {}

// Pieces lie one behind the other from the oldest on, around the end.
bool Staging::has_room(std::size_t begin, std::size_t end) const {
  if (end > memory_.bytes()) return false;
  const std::size_t oldest = pieces_.front().begin, newest = pieces_.back().end;
  return oldest < newest ? begin >= newest || end <= oldest : begin >= newest && end <= oldest;
}

void Staging::free_oldest() {
  pieces_.front().copied.wait();
  spare_.push_back(std::move(pieces_.front().copied));
  pieces_.pop_front();
}

std::size_t Staging::take(std::size_t bytes) {
  while (!pieces_.empty() && pieces_.front().copied.reached()) free_oldest();
  while (!pieces_.empty()) {
    const std::size_t next = pieces_.back().end;
    if (has_room(next, next + bytes)) return next;
    if (has_room(0, bytes)) return 0;
    free_oldest();
  }
  return 0;
}

void Staging::copy(Stream& stream, void* to, const void* from, std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;
  const std::size_t begin = take(bytes), end = begin + (bytes + kAlignment - 1) / kAlignment * kAlignment;
  char* staged = static_cast<char*>(memory_.data()) + begin;
  std::memcpy(staged, from, bytes);
  copy_pinned(stream, to, staged, bytes);
  Event copied;
  if (!spare_.empty()) {
    copied = std::move(spare_.back());
    spare_.pop_back();
  }
  copied.record(stream);
  pieces_.push_back({begin, end, std::move(copied)});
}

}  // namespace twinlens
