#include "twinlens/clip/embedding_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unistd.h>
#include <vector>

#include "clip/src/json_text.h"

#include "twinlens/core/check.h"
#include "twinlens/core/ops.h"
#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr const char *kName = "embeddings", *kExif = "exif_orientation", *kFast = "fast_decode";

[[noreturn]] void fail(const std::string& what, const std::string& path) {
  throw FileError(what + ": " + std::strerror(errno) + "; '" + path + "'; its folder must exist and have room");
}

// A file without a name, which goes away by itself.
int open_unnamed(const std::string& beside) {
  const std::filesystem::path parent = std::filesystem::path(beside).parent_path();
  std::string name = (parent.empty() ? "." : parent.string()) + "/.twinlens-rows-XXXXXX";
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) fail("cannot create the file", beside);
  ::unlink(name.c_str());
  return descriptor;
}

const char* text_of(bool on) { return on ? "true" : "false"; }

bool is_on(const Metadata& metadata, const char* key, const std::string& path) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return false;
  if (found->second == text_of(true) || found->second == text_of(false)) return found->second == text_of(true);
  throw FileError(std::string("its pictures were decoded in a way that is not known here: ") + key + " is '" + found->second + "'; '" +
                  path + "'; make it anew by twinlens embed or index");
}

}  // namespace

Metadata decoding_metadata(const EmbedOptions& options) {
  return {{kExif, text_of(options.exif_orientation)}, {kFast, text_of(options.fast_decode)}};
}

bool decode_as(EmbedOptions& options, const Metadata& metadata, const std::string& path) {
  options.exif_orientation = is_on(metadata, kExif, path);
  options.fast_decode = is_on(metadata, kFast, path);
  return metadata.contains(kExif) && metadata.contains(kFast);
}

EmbeddingWriter::EmbeddingWriter(std::string path, Metadata metadata) : path_(std::move(path)), metadata_(std::move(metadata)) {
  static_cast<void>(AtomicFile(path_));  // throws where finish() could not make one, before hours of work
  descriptor_ = open_unnamed(path_);
}

EmbeddingWriter::~EmbeddingWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EmbeddingWriter::append(const Tensor& rows) {
  check(rows.rank() == 2 && rows.dtype() == DType::f32 && (count_ == 0 || rows.size(1) == width_), "EmbeddingWriter",
        "rows must be (n, E) f32 of one width", {{"rows", rows}});
  const Tensor plain = dense(rows);
  const char* p = static_cast<const char*>(plain.raw());
  auto left = static_cast<std::size_t>(rows.count()) * sizeof(float);
  while (left > 0) {
    const ssize_t written = ::write(descriptor_, p, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write the file", path_);
    p += written;
    left -= static_cast<std::size_t>(written);
  }
  width_ = rows.size(1);
  count_ += rows.size(0);
}

void EmbeddingWriter::finish() {
  const std::uint64_t bytes = static_cast<std::uint64_t>(count_) * static_cast<std::uint64_t>(width_) * sizeof(float);
  Metadata metadata = metadata_;
  metadata["format"] = "pt";
  std::string header =
      json_text({{"__metadata__", metadata}, {kName, {{"dtype", "F32"}, {"shape", {count_, width_}}, {"data_offsets", {0, bytes}}}}});
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size();
  AtomicFile file(path_);
  file.write(&length, 8);
  file.write(header.data(), header.size());
  std::vector<char> block(std::size_t{1} << 20);
  for (std::uint64_t at = 0; at < bytes;) {
    const ssize_t got = ::pread(descriptor_, block.data(), block.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail("cannot read back what was written", path_);
    file.write(block.data(), static_cast<std::size_t>(got));
    at += static_cast<std::uint64_t>(got);
  }
  file.commit();
}

EmbeddingReader::EmbeddingReader(const std::string& path) : file_(path) {
  const SafetensorsFile checked(path);  // that all offsets lie within the file
  if (!checked.contains(kName) || checked.entry(kName).shape.size() != 2 || checked.entry(kName).dtype != "F32") {
    throw FileError("no tensor 'embeddings' (N, E) of F32; '" + path + "'; make it by twinlens embed or index");
  }
  metadata_ = checked.metadata();
  const SafetensorsEntry& entry = checked.entry(kName);
  std::uint64_t header = 0;
  file_.read_at(0, &header, 8);
  data_ = 8 + header + entry.begin;
  count_ = entry.shape[0];
  width_ = entry.shape[1];
}

Tensor EmbeddingReader::rows(std::int64_t begin, std::int64_t end) const {
  check(begin >= 0 && begin <= end && end <= count_, "EmbeddingReader", "rows must be within the file");
  Tensor out = empty({end - begin, width_});
  const auto row = static_cast<std::uint64_t>(width_) * sizeof(float);
  file_.read_at(data_ + static_cast<std::uint64_t>(begin) * row, out.raw(), static_cast<std::size_t>(end - begin) * row);
  return out;
}

}  // namespace twinlens
