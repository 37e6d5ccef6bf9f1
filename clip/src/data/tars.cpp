// WebDataset tars: one pass over the headers by libarchive (ustar, pax, GNU names) gives offsets; samples are read by pread.

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "clip/src/data/dataset_base.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

struct Member {
  std::uint64_t offset = 0, size = 0;
};

struct Sample {
  std::string key;                        // path up to the first dot of the base name
  std::map<std::string, Member> members;  // by lower-case extension
};

// Index of one tar, in file order.
std::vector<Sample> index_tar(const std::string& path) {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  archive_read_support_format_tar(reader.get());
  if (archive_read_open_filename(reader.get(), path.c_str(), 1 << 18) != ARCHIVE_OK) {
    throw FileError("shard cannot be read: " + std::string(archive_error_string(reader.get())) + "; " + path +
                    "; check the path, and that it is an uncompressed tar");
  }
  std::vector<Sample> samples;
  archive_entry* entry = nullptr;
  while (true) {
    const int status = archive_read_next_header(reader.get(), &entry);
    if (status == ARCHIVE_EOF) break;
    if (status < ARCHIVE_WARN) {
      throw FileError("shard is damaged: " + std::string(archive_error_string(reader.get())) + "; " + path + " after " +
                      std::to_string(samples.size()) + " samples; fetch it again");
    }
    if (archive_entry_filetype(entry) != AE_IFREG) continue;
    const std::string name = archive_entry_pathname(entry);
    const auto slash = name.rfind('/');
    const std::size_t base = slash == std::string::npos ? 0 : slash + 1;
    const auto dot = name.find('.', base);
    if (dot == std::string::npos || dot == base || name.compare(base, 2, "__") == 0) continue;
    const std::string key = name.substr(0, dot);
    std::string extension = name.substr(dot + 1);
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (samples.empty() || samples.back().key != key || samples.back().members.count(extension) > 0) samples.push_back({key, {}});
    // After a header has been read, what libarchive has consumed is where the data begins.
    samples.back().members[extension] = {static_cast<std::uint64_t>(archive_filter_bytes(reader.get(), 0)),
                                         static_cast<std::uint64_t>(archive_entry_size(entry))};
  }
  return samples;
}

class TarDataset final : public IndexedDataset {
 public:
  explicit TarDataset(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      files_.emplace_back(path);
      names_.push_back(std::filesystem::path(path).filename().string());
      note_source(names_.back() + std::to_string(files_.back().size()));
      for (const Sample& sample : index_tar(path)) add(sample);
    }
  }

  std::string key(std::int64_t i) const override { return label(at(i).file, at(i).key); }
  std::string image_bytes(std::int64_t i) const override { return read(at(i).file, at(i).image); }
  std::string field(std::int64_t i, const std::string& name) const override {
    const Record& r = at(i);
    if (r.json.size == 0) return {};
    const auto json = nlohmann::json::parse(read(r.file, r.json), nullptr, false);
    if (!json.is_object() || !json.contains(name)) return {};
    return json[name].is_string() ? json[name].get<std::string>() : json[name].dump();
  }

 private:
  struct Record {
    std::size_t file = 0;
    std::string key;
    Member image, json;
  };

  void add(const Sample& sample) {
    const std::size_t file = files_.size() - 1;
    const std::string name = label(file, sample.key);
    Record record{file, sample.key, {}, {}};
    for (const char* extension : {"jpg", "png", "jpeg", "webp"}) {
      const auto it = sample.members.find(extension);
      if (it != sample.members.end() && record.image.size == 0) record.image = it->second;
    }
    const auto text = sample.members.find("txt");
    if (record.image.size == 0) return skip(name, "no picture (jpg, png, jpeg or webp)");
    if (text == sample.members.end()) return skip(name, "no caption (txt)");
    if (const auto json = sample.members.find("json"); json != sample.members.end()) record.json = json->second;
    if (add_sample(name, read(file, text->second))) records_.push_back(std::move(record));
  }

  const Record& at(std::int64_t i) const { return records_.at(static_cast<std::size_t>(i)); }
  std::string label(std::size_t file, const std::string& key) const { return names_[file] + ":" + key; }
  std::string read(std::size_t file, const Member& member) const {
    std::string bytes(member.size, '\0');
    files_[file].read_at(member.offset, bytes.data(), bytes.size());
    return bytes;
  }

  std::vector<InputFile> files_;
  std::vector<std::string> names_;
  std::vector<Record> records_;
};

}  // namespace

std::shared_ptr<const Dataset> open_tars(const std::vector<std::string>& paths) { return std::make_shared<TarDataset>(paths); }

}  // namespace twinlens
