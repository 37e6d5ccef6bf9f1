#pragma once
// Files that are read at random, of which only some are open at a time: there may be more shards than a process may open.

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "twinlens/core/file.h"

namespace twinlens {

// add() and add_open() before anything else; open() is thread-safe.
class FilePool {
 public:
  explicit FilePool(std::size_t most = 256) : most_(most) {}
  // A file that must have this size and time of change whenever it is opened.
  void add(const std::string& path, std::uint64_t size, std::int64_t modified) { files_.push_back({path, size, modified, nullptr, 0, false}); }
  // A file that stays open.
  void add_open(InputFile file) { files_.push_back({{}, 0, 0, std::make_shared<const InputFile>(std::move(file)), 0, true}); }
  // File number `index`, in the order of adding. Throws FileError when it is gone or has changed.
  std::shared_ptr<const InputFile> open(std::size_t index) const;

 private:
  struct Entry {
    std::string path;
    std::uint64_t size = 0;
    std::int64_t modified = 0;
    std::shared_ptr<const InputFile> file;
    std::uint64_t used = 0;
    bool stays = false;
  };
  std::size_t most_;
  mutable std::mutex mutex_;
  mutable std::vector<Entry> files_;
  mutable std::size_t open_ = 0;
  mutable std::uint64_t clock_ = 0;
};

}  // namespace twinlens
