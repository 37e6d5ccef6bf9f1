#pragma once
// Scope: a thread-local stack of names ("visual", "transformer.resblocks.3", "attn"). One idea, three uses: it tags memory, names
// profiler ranges and tells error messages where they happened.
//
// A Scope lives on the stack of the thread that made it and must be destroyed in reverse order of construction.

#include <string>
#include <string_view>

namespace twinlens {

class Scope {
 public:
  explicit Scope(std::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // The names of this thread's scopes joined by dots; empty outside of any.
  static const std::string& path();

 private:
  std::size_t previous_length_;
};

// The whole path for a while, in the place of what it is: backward runs under that of the forward pass.
class ScopePath {
 public:
  explicit ScopePath(std::string path);
  ~ScopePath();
  ScopePath(const ScopePath&) = delete;
  ScopePath& operator=(const ScopePath&) = delete;

 private:
  std::string previous_;
};

}  // namespace twinlens
