// WebDataset tars: one pass over the headers by libarchive (ustar, pax, GNU names) gives offsets; samples are read by pread.

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <unistd.h>
#include <zlib.h>

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

// The bytes of a member's name. (A pax name that the locale cannot express is there as UTF-8 only.)
std::string name_of(archive_entry* entry) {
  for (const char* name : {archive_entry_pathname_utf8(entry), archive_entry_pathname(entry)}) {
    if (name != nullptr) return name;
  }
  return {};
}

// Index of one tar, in file order; errors call it `name`.
std::vector<Sample> index_tar(const std::string& path, const std::string& name) {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  archive_read_support_format_tar(reader.get());
  if (archive_read_open_filename(reader.get(), path.c_str(), 1 << 18) != ARCHIVE_OK) {
    throw FileError("shard cannot be read: " + std::string(archive_error_string(reader.get())) + "; " + name + "; check that it is a tar");
  }
  std::vector<Sample> samples;
  archive_entry* entry = nullptr;
  while (true) {
    const int status = archive_read_next_header(reader.get(), &entry);
    if (status == ARCHIVE_EOF) break;
    if (status < ARCHIVE_WARN) {
      throw FileError("shard is damaged: " + std::string(archive_error_string(reader.get())) + "; " + name + " after " +
                      std::to_string(samples.size()) + " samples; fetch it again");
    }
    if (archive_entry_filetype(entry) != AE_IFREG) continue;
    const std::string member = name_of(entry);
    const auto slash = member.rfind('/');
    const std::size_t base = slash == std::string::npos ? 0 : slash + 1;
    const auto dot = member.find('.', base);
    if (dot == std::string::npos || dot == base || member.compare(base, 2, "__") == 0) continue;
    const std::string key = member.substr(0, dot);
    std::string extension = member.substr(dot + 1);
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (samples.empty() || samples.back().key != key || samples.back().members.count(extension) > 0) samples.push_back({key, {}});
    // After a header has been read, what libarchive has consumed is where the data begins.
    samples.back().members[extension] = {static_cast<std::uint64_t>(archive_filter_bytes(reader.get(), 0)),
                                         static_cast<std::uint64_t>(archive_entry_size(entry))};
  }
  return samples;
}

// What a .tar.gz holds, in a file that goes away when it is closed: samples are read at random, which gzip does not allow.
class Unpacked {
 public:
  explicit Unpacked(const std::string& path) {
    std::string temporary = (std::filesystem::temp_directory_path() / "twinlens-XXXXXX").string();
    const int descriptor = ::mkstemp(temporary.data());
    if (descriptor < 0) throw FileError("shard cannot be unpacked; " + temporary + "; set TMPDIR to a place with room, or unpack " + path);
    ::close(descriptor);
    path_ = temporary;
    try {
      copy(path);
    } catch (...) {
      ::unlink(path_.c_str());
      throw;
    }
  }
  ~Unpacked() { ::unlink(path_.c_str()); }
  Unpacked(const Unpacked&) = delete;
  Unpacked& operator=(const Unpacked&) = delete;
  const std::string& path() const { return path_; }

 private:
  void copy(const std::string& from) const {
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> in(gzopen(from.c_str(), "rb"), gzclose);
    std::ofstream out(path_, std::ios::binary | std::ios::trunc);
    std::string block(1 << 18, '\0');
    int got = 1;
    while (in != nullptr && out && got > 0) {
      got = gzread(in.get(), block.data(), static_cast<unsigned>(block.size()));
      if (got > 0) out.write(block.data(), got);
    }
    int code = Z_OK;
    if (in == nullptr || got < 0 || (gzerror(in.get(), &code), code != Z_OK)) {
      throw FileError("shard is damaged: the gzip data is cut short or wrong; " + from + "; fetch it again");
    }
    out.close();
    if (!out)
      throw FileError("shard cannot be unpacked to " + path_ + "; " + from + "; set TMPDIR to a place with room, or unpack it yourself");
  }

  std::string path_;
};

bool is_gzip(const InputFile& file) {
  std::array<unsigned char, 2> magic{};
  if (file.size() < magic.size()) return false;
  file.read_at(0, magic.data(), magic.size());
  return magic[0] == 0x1F && magic[1] == 0x8B;
}

class TarDataset final : public IndexedDataset {
 public:
  explicit TarDataset(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      InputFile file(path);
      names_.push_back(std::filesystem::path(path).filename().string());
      note_source(names_.back() + std::to_string(file.size()));
      if (is_gzip(file)) {
        const Unpacked unpacked(path);
        add_all(unpacked.path(), path);
      } else {
        add_all(path, path);
      }
    }
    if (size() == 0)
      throw FileError("no samples; " + paths.front() + "; a sample is KEY.jpg (png, jpeg, webp) and KEY.txt, next to each other");
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

  void add_all(const std::string& tar, const std::string& name) {
    files_.emplace_back(tar);
    for (const Sample& sample : index_tar(tar, name)) add(sample);
  }
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
