#include "clip/src/step_readback.h"

#include <cstring>

namespace twinlens {

StepReadback::StepReadback(Device device) : record_(empty({static_cast<std::int64_t>(sizeof(StepRecord))}, DType::u8, device)) {
  const StepRecord none;
  copy_bytes(current_stream(device), record_.raw(), device, &none, kCpu, sizeof none);
  for (Place& place : places_) place.pinned = allocate_pinned(sizeof(StepRecord));
}

StepReadback::~StepReadback() {
  for (const Place& place : places_) place.copied.wait_at_end();
}

void StepReadback::queue() {
  Place& place = places_[static_cast<std::size_t>(queued_++ % 2)];
  Stream& stream = current_stream(record_.device());
  copy_pinned(stream, place.pinned.data(), record_.raw(), sizeof(StepRecord));
  place.copied.record(stream);
}

StepRecord StepReadback::take() {
  const Place& place = places_[static_cast<std::size_t>(taken_++ % 2)];
  place.copied.wait();
  StepRecord record;
  std::memcpy(&record, place.pinned.data(), sizeof record);
  return record;
}

}  // namespace twinlens
