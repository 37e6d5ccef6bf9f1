#pragma once
// Decoded pictures of a dataset that is small enough to keep whole: the second epoch decodes nothing. All or none: as soon as the
// pictures seen so far say that not all will fit, everything is let go and nothing is kept any more. Any thread may call.

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "twinlens/clip/image.h"

namespace twinlens {

class PictureCache {
 public:
  // `limit` in bytes of pixels; 0 keeps nothing. `pictures`: how many the dataset has.
  PictureCache(std::int64_t limit, std::int64_t pictures) : limit_(limit), pictures_(pictures) {}

  // The picture, or null when it is not here.
  std::shared_ptr<const Image> find(std::int64_t sample) const;
  void keep(std::int64_t sample, std::shared_ptr<const Image> picture);

 private:
  bool will_fit() const;

  mutable std::mutex mutex_;
  std::unordered_map<std::int64_t, std::shared_ptr<const Image>> kept_;
  std::int64_t limit_, pictures_, bytes_ = 0;
};

}  // namespace twinlens
