#pragma once
// What memory and copies need to know of a Graph that is being recorded.

#include <exception>

namespace twinlens {

// A pool has no block for what recorded work asks for: Graph::record() ends with nothing.
class NoBlock : public std::exception {
 public:
  const char* what() const noexcept override { return "a recording asked for memory that its pool does not have"; }
};

}  // namespace twinlens
