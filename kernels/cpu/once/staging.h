#pragma once
// Staging: copies to a card by way of pinned memory, so that the host need not wait for the stream, as it does for a copy from memory of
// its own. A ring: a copy takes the bytes behind the one before it, and has them until its event is reached. The host waits only where the
// ring is full of copies that the card has not come to.
//
// One for each stream, used by the thread whose stream it is.

#include <deque>
#include <vector>

#include "twinlens/kernels/event.h"
#include "twinlens/kernels/memory.h"

namespace twinlens {

class Staging {
 public:
  explicit Staging(std::size_t bytes);

  // The largest copy that it takes: a part of the ring, so that the next can be filled while one is copied.
  std::size_t largest() const { return memory_.bytes() / 4; }
  void copy(Stream& stream, void* to, const void* from, std::size_t bytes);
  // Copies whose bytes are not free again.
  std::size_t waiting() const { return pieces_.size(); }

 private:
  struct Piece {
    std::size_t begin, end;
    Event copied;
  };
  std::size_t take(std::size_t bytes);
  bool has_room(std::size_t begin, std::size_t end) const;
  void free_oldest();

  Memory memory_;
  std::deque<Piece> pieces_;  // oldest first
  std::vector<Event> spare_;  // of pieces that are free again
};

}  // namespace twinlens
