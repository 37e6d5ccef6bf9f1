#include "clip/src/data/picture_cache.h"

namespace twinlens {
namespace {

// So many pictures say what the others will take.
constexpr std::int64_t kSampled = 64;

}  // namespace

std::shared_ptr<const Image> PictureCache::find(std::int64_t sample) const {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(sample);
  return found == kept_.end() ? nullptr : found->second;
}

void PictureCache::keep(std::int64_t sample, std::shared_ptr<const Image> picture) {
  const std::lock_guard lock(mutex_);
  if (limit_ == 0) return;
  const auto bytes = static_cast<std::int64_t>(picture->rgb.size());
  if (kept_.emplace(sample, std::move(picture)).second) bytes_ += bytes;
  if (will_fit()) return;
  kept_.clear();
  limit_ = 0;
}

// Called with the lock held.
bool PictureCache::will_fit() const {
  const auto count = static_cast<std::int64_t>(kept_.size());
  if (bytes_ > limit_) return false;
  return count < kSampled ||
         static_cast<double>(bytes_) / static_cast<double>(count) * static_cast<double>(pictures_) <= static_cast<double>(limit_);
}

}  // namespace twinlens
