#include "twinlens/kernels/scope.h"

#include <utility>

namespace twinlens {
namespace {

std::string& current_path() {
  thread_local std::string path;
  return path;
}

}  // namespace

Scope::Scope(std::string_view name) : previous_length_(current_path().size()) {
  std::string& path = current_path();
  if (!path.empty()) path += '.';
  path += name;
}

Scope::~Scope() { current_path().resize(previous_length_); }

const std::string& Scope::path() { return current_path(); }

ScopePath::ScopePath(std::string path) : previous_(std::exchange(current_path(), std::move(path))) {}
ScopePath::~ScopePath() { current_path() = std::move(previous_); }

}  // namespace twinlens
