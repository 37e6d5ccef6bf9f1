#pragma once
// CardFeeder: batches on their way to a card. The loader makes them, or what they are made of (device_transforms), in pinned memory; a
// stream of copies takes them into a ring of buffers on the card, up to `ahead` batches before their step, so that the stream of work
// waits for a batch only when it has not been made.
//
// A buffer takes the next batch when the step that read it is done (an event of the stream of work), and a batch's host memory goes back
// when its copy is done (an event of the stream of copies). The host waits for neither, unless it is a whole ring ahead of the card.
//
// The order, and errors of the loader, are the loader's: an error comes out with the batch that it belongs to. One thread uses a feeder,
// the one whose streams they are.

#include <exception>
#include <vector>

#include "twinlens/clip/loader.h"
#include "twinlens/kernels/event.h"

namespace twinlens {

class CardFeeder {
 public:
  // `loader` makes pinned batches (LoaderOptions::pinned), their pixels of this shape. `ahead`: 1 or more.
  CardFeeder(Loader& loader, const Shape& pixels, Device device, std::int64_t ahead);
  ~CardFeeder();  // waits for copies under way
  CardFeeder(const CardFeeder&) = delete;
  CardFeeder& operator=(const CardFeeder&) = delete;

  // The next batch, its pixels on the card: good until the next call, for work on the current stream.
  LoadedBatch next();
  // When the work on that batch has been queued: fills the ring, waiting for the loader where it must.
  void prefetch();

 private:
  struct Slot {
    LoadedBatch batch;
    std::exception_ptr error;
    Tensor host;                                   // the batch's pixels in pinned memory, until they are copied
    std::shared_ptr<const PackedPictures> packed;  // or what they are made of
    Tensor pixels;                                 // on the card
    Event copied, used;
  };
  Slot& slot(std::int64_t batch) { return slots_[static_cast<std::size_t>(batch % static_cast<std::int64_t>(slots_.size()))]; }
  void fill();
  void transform(Slot& s, Stream& copies) const;

  Loader& loader_;
  Device device_;
  std::vector<Slot> slots_;
  std::int64_t filled_ = 0, given_ = 0;  // batches
  bool in_use_ = false;                  // the one given last; its work may be queued still
};

}  // namespace twinlens
