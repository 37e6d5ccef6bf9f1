#include "clip/src/data/file_pool.h"

#include "twinlens/kernels/error.h"

namespace twinlens {

std::shared_ptr<const InputFile> FilePool::open(std::size_t index) const {
  const std::lock_guard lock(mutex_);
  Entry& entry = files_.at(index);
  entry.used = ++clock_;
  if (entry.file != nullptr) return entry.file;
  auto file = std::make_shared<const InputFile>(entry.path);
  if (file->size() != entry.size || file->modified() != entry.modified) {
    throw FileError("the shard has changed since it was indexed; " + entry.path + "; start again");
  }
  if (open_ >= most_) {  // close the one that was used longest ago
    Entry* oldest = nullptr;
    for (Entry& e : files_) {
      if (e.file != nullptr && !e.stays && (oldest == nullptr || e.used < oldest->used)) oldest = &e;
    }
    if (oldest != nullptr) {
      oldest->file = nullptr;
      --open_;
    }
  }
  entry.file = file;
  ++open_;
  return file;
}

}  // namespace twinlens
