#pragma once
// TensorBoard's event files: LOGS/NAME/tensorboard/events.out.tfevents.*, which TensorBoard watches while a run goes on.
//
// A file is a sequence of TFRecords: u64 length, masked CRC-32C of it, the bytes, masked CRC-32C of them (tensorflow/core/lib/io/
// record_writer.h). Each holds one Event in protobuf's wire format (tensorflow/core/util/event.proto): wall_time = 1 (double), step = 2
// (varint), file_version = 3 (string, in the first), summary = 5 { value = 1 { tag = 1 (string), simple_value = 2 (float) } }.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace twinlens {

using Scalars = std::vector<std::pair<std::string, double>>;  // tag, value

// One TFRecord around these bytes.
std::string tfrecord(const std::string& bytes);
std::string event_of(double wall_time, std::int64_t step, const Scalars& scalars);
std::string version_event(double wall_time);

class EventFile {
 public:
  // Begins a file of its own in `folder`, which is made. Throws FileError.
  explicit EventFile(const std::filesystem::path& folder);
  // Throws FileError when it cannot be written.
  void add(std::int64_t step, const Scalars& scalars);
  // Takes out of the files in `folder` every event behind `step` (and, of that step, those that have a tag beginning with `also`), and
  // what a killed process left half written: a resumed run goes on from there.
  static void rewind(const std::filesystem::path& folder, std::int64_t step, const std::string& also = {});

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace twinlens
