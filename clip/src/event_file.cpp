#include "clip/src/event_file.h"

#include <bit>
#include <chrono>
#include <cstring>
#include <unistd.h>

#include "twinlens/core/crc32c.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "event files are little endian");

constexpr const char* kPrefix = "events.out.tfevents.";

std::uint32_t masked(std::uint32_t sum) { return ((sum >> 15) | (sum << 17)) + 0xA282EAD8U; }

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>((value & 127U) | 128U);
  out += static_cast<char>(value);
}

// A field's tag: number and wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).
void put_tag(std::string& out, unsigned number, unsigned type) { put_varint(out, (std::uint64_t{number} << 3) | type); }

void put_bytes(std::string& out, unsigned number, const std::string& bytes) {
  put_tag(out, number, 2);
  put_varint(out, bytes.size());
  out += bytes;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

bool take_varint(const std::string& in, std::size_t& at, std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; at < in.size() && shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(in[at++]);
    value |= std::uint64_t{byte & 127U} << shift;
    if (byte < 128) return true;
  }
  return false;
}

// The step of an event as event_of writes it; -1 when it has none.
std::int64_t step_of(const std::string& event) {
  std::uint64_t value = 0;
  std::size_t at = 0;
  while (take_varint(event, at, value)) {
    const std::uint64_t number = value >> 3, type = value & 7U;
    if (type == 0) {
      if (!take_varint(event, at, value)) return -1;
      if (number == 2) return static_cast<std::int64_t>(value);
    } else if (type == 1 || type == 5) {
      at += type == 1 ? 8 : 4;
    } else if (type == 2) {
      if (!take_varint(event, at, value) || value > event.size()) return -1;
      at += static_cast<std::size_t>(value);
    } else {
      return -1;
    }
  }
  return -1;
}

// The records of a file up to the first that is damaged or cut short.
std::vector<std::string> read_records(const std::string& bytes) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (bytes.size() - at >= 16) {
    std::uint64_t length = 0;
    std::uint32_t sum = 0;
    std::memcpy(&length, bytes.data() + at, 8);
    std::memcpy(&sum, bytes.data() + at + 8, 4);
    if (sum != masked(crc32c(&length, 8)) || length > bytes.size() - at - 16) break;
    std::string record = bytes.substr(at + 12, static_cast<std::size_t>(length));
    std::memcpy(&sum, bytes.data() + at + 12 + length, 4);
    if (sum != masked(crc32c(record))) break;
    out.push_back(std::move(record));
    at += 16 + static_cast<std::size_t>(length);
  }
  return out;
}

}  // namespace

std::string tfrecord(const std::string& bytes) {
  const std::uint64_t length = bytes.size();
  std::string out;
  put(out, length);
  put(out, masked(crc32c(&length, 8)));
  out += bytes;
  put(out, masked(crc32c(bytes)));
  return out;
}

std::string event_of(double wall_time, std::int64_t step, const Scalars& scalars) {
  std::string out, summary;
  for (const auto& [tag, value] : scalars) {
    std::string one;
    put_bytes(one, 1, tag);
    put_tag(one, 2, 5);
    put(one, static_cast<float>(value));
    put_bytes(summary, 1, one);
  }
  put_tag(out, 1, 1);
  put(out, wall_time);
  put_tag(out, 2, 0);
  put_varint(out, static_cast<std::uint64_t>(step));
  put_bytes(out, 5, summary);
  return out;
}

std::string version_event(double wall_time) {
  std::string out;
  put_tag(out, 1, 1);
  put(out, wall_time);
  put_bytes(out, 3, "brain.Event:2");
  return out;
}

EventFile::EventFile(const fs::path& folder) {
  std::error_code ignored;
  fs::create_directories(folder, ignored);
  char host[256] = "host";
  ::gethostname(host, sizeof host - 1);
  const auto seconds = static_cast<long long>(now());
  for (int n = 0; path_.empty() || fs::exists(path_, ignored); ++n) {
    path_ = folder / (kPrefix + std::to_string(seconds) + "." + host + "." + std::to_string(::getpid()) + "." + std::to_string(n));
  }
  file_.open(path_, std::ios::binary);
  file_ << tfrecord(version_event(now())) << std::flush;
  if (!file_) throw FileError("TensorBoard's file cannot be written; " + path_.string() + "; check permissions and free space");
}

void EventFile::add(std::int64_t step, const Scalars& scalars) {
  file_ << tfrecord(event_of(now(), step, scalars)) << std::flush;
  if (!file_) throw FileError("TensorBoard's file could not be written; " + path_.string() + "; free some disk space and resume");
}

void EventFile::rewind(const fs::path& folder, std::int64_t step, const std::string& also) {
  std::error_code ignored;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) == 0 && name.find(".tmp-") == std::string::npos) files.push_back(entry.path());
  }
  for (const fs::path& path : files) {
    const std::string before = read_file(path.string());
    std::string kept;
    for (const std::string& record : read_records(before)) {
      const std::int64_t at = step_of(record);
      if (at < step || (at == step && (also.empty() || record.find(also) == std::string::npos))) kept += tfrecord(record);
    }
    if (kept != before) atomic_write(path.string(), kept);
  }
}

}  // namespace twinlens
