#include "clip/src/card_feeder.h"

#include <utility>

#include "clip/src/card_pictures.h"

#include "twinlens/kernels/memory.h"

namespace twinlens {

CardFeeder::CardFeeder(Loader& loader, const Shape& pixels, Device device, std::int64_t ahead)
    : loader_(loader), device_(device), slots_(static_cast<std::size_t>(ahead) + 1) {
  for (Slot& s : slots_) {
    s.pixels = empty(pixels, DType::u8, device);
    s.used.record(current_stream(device));  // (memory is ordered on that stream)
  }
}

CardFeeder::~CardFeeder() {
  for (const Slot& s : slots_) s.copied.wait_at_end();
}

void CardFeeder::fill() {
  Slot& s = slot(filled_);
  s.copied.wait();  // its host memory goes back
  s.error = nullptr;
  try {
    s.batch = loader_.next();
  } catch (...) {
    s.error = std::current_exception();
  }
  ++filled_;
  if (s.error != nullptr) return;
  s.host = std::exchange(s.batch.pixels, {});
  Stream& copies = copy_stream(device_);
  s.used.hold(copies);
  s.packed = std::exchange(s.batch.packed, nullptr);
  if (s.packed != nullptr) {
    transform(s, copies);
  } else {
    copy_pinned(copies, s.pixels.raw(), s.host.raw(), static_cast<std::size_t>(s.host.count()));
  }
  s.copied.record(copies);
}

// What the kernels read is the stream's, and free when it has come to their end. (The copy has an event of its own: where a kernel cannot
// be launched, the pinned bytes are given back, and not before they are read.)
void CardFeeder::transform(Slot& s, Stream& copies) const {
  const Memory on_card = allocate(copies, static_cast<std::size_t>(s.packed->bytes_on_card()));
  copy_pinned(copies, on_card.data(), s.packed->bytes.raw(), static_cast<std::size_t>(s.packed->bytes.count()));
  s.copied.record(copies);
  transform_pictures(copies, *s.packed, on_card.data(), s.pixels);
}

LoadedBatch CardFeeder::next() {
  if (in_use_) prefetch();
  if (given_ == filled_) fill();
  Slot& s = slot(given_++);
  if (s.error != nullptr) std::rethrow_exception(s.error);
  s.copied.hold(current_stream(device_));
  in_use_ = true;
  LoadedBatch batch = std::move(s.batch);
  batch.pixels = s.pixels;
  return batch;
}

void CardFeeder::prefetch() {
  if (std::exchange(in_use_, false)) slot(given_ - 1).used.record(current_stream(device_));
  while (filled_ - given_ < static_cast<std::int64_t>(slots_.size()) - 1) {
    if (filled_ > given_ && slot(filled_ - 1).error != nullptr) return;
    fill();
  }
}

}  // namespace twinlens
