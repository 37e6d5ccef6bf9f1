#include "clip/src/data/tar_index.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>
#include <thread>
#include <unordered_map>
#include <utility>

#include "clip/src/data/file_names.h"
#include "clip/src/data/tar_reading.h"

#include "twinlens/clip/text_encoding.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLargestText = std::int64_t{16} << 20;         // of a caption or .json
constexpr std::int64_t kSettled = 2'000'000'000;                      // nanoseconds
constexpr std::int64_t kLargestMember = (std::int64_t{1} << 32) - 1;  // of a picture

struct Part {
  Member member;
  std::string bytes;    // of what may hold captions
  std::string problem;  // why it cannot be used
};
struct Sample {
  std::string key;                    // path up to the first dot of the base name
  std::map<std::string, Part> parts;  // by lower-case extension
};

std::string listed(const std::vector<std::string>& words, const char* last = " or ") {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) out += (i == 0 ? "" : i + 1 == words.size() ? last : ", ") + words[i];
  return out;
}

// " among cls and jpg": where more than the picture is there, some of it may be what is looked for by another name.
std::string among(const std::map<std::string, Part>& parts) {
  constexpr std::size_t kMost = 8;
  std::vector<std::string> words;
  for (const auto& [extension, part] : parts) {
    if (words.size() < kMost) words.push_back(extension);
  }
  if (parts.size() > kMost) words.push_back(std::to_string(parts.size() - kMost) + " more");
  return parts.size() < 2 ? "" : " among " + listed(words, " and ");
}

// webdataset's names for what is no sample: __meta__.json.
bool is_meta(std::string_view name) { return name.size() >= 4 && name.starts_with("__") && name.ends_with("__"); }

class TarPass {
 public:
  TarPass(const std::string& path, const CaptionRules& rules, std::string damage = {})
      : file_(path), rules_(rules), compressed_(is_compressed(file_)), builder_(compressed_), damage_(std::move(damage)) {
    if (!compressed_) whole_ = file_.size();
  }

  std::string run() {
    try {
      read_all();
    } catch (const Damage& found) {
      if (damage_.empty()) damage_ = found.why;
    }
    // What lies before the damage is used: also the sample under way, if all that is known of it does.
    const bool cut = std::any_of(sample_.parts.begin(), sample_.parts.end(),
                                 [&](const auto& part) { return part.second.member.offset + part.second.member.size > whole_; });
    at_damage_ = damaged();
    if (!damaged() || !cut) close_sample();
    for (const auto& [key, reason] : skipped_) builder_.skip(key, reason);
    if (damaged()) {
      const std::string where =
          builder_.samples() == 0 ? "before its first sample" : "after " + std::to_string(builder_.samples()) + " samples";
      builder_.skip("", "the shard is damaged " + where + ": " + damage_ + "; fetch it again");
    }
    return builder_.finish(file_.size(), file_.modified(), std::max(stream_size_, reached_), rules_.digest());
  }
  bool damaged() const { return !damage_.empty(); }

 private:
  struct Damage {
    std::string why;
  };

  void read_all() {
    if (file_.size() == 0) fail("the file is empty (0 bytes)");
    const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
    reader_ = reader.get();
    archive_read_support_format_tar(reader_);
    TarInput input;
    check(input.open(reader_, file_.path()));
    archive_entry* entry = nullptr;
    while (true) {
      const int status = archive_read_next_header(reader_, &entry);
      if (status == ARCHIVE_EOF) break;
      check(status);
      stream_size_ = static_cast<std::uint64_t>(archive_filter_bytes(reader_, 0));
      if (compressed_) whole_ = stream_size_;
      take(entry);
    }
    stream_size_ = static_cast<std::uint64_t>(archive_filter_bytes(reader_, 0));
    if (compressed_) whole_ = stream_size_;
    if (!compressed_ && reached_ > file_.size()) fail("it is cut short");
    if (input.has_more(reader_)) fail(kMoreBehindEnd);
  }

  [[noreturn]] static void fail(const std::string& why) { throw Damage{why}; }
  void check(int status) const {
    if (was_read(status)) return;
    std::string why = archive_error_string(reader_) != nullptr ? archive_error_string(reader_) : "unknown error";
    if (compressed_) why += " (the compressed data is cut short or wrong)";
    if (!compressed_ && stream_size_ == 0) why += " (a shard is a tar, plain or packed with gzip or zstd)";
    fail(why);
  }

  void take(archive_entry* entry) {
    if (archive_entry_filetype(entry) != AE_IFREG) return;
    const std::string member = name_of(entry);
    const auto slash = member.rfind('/');
    const std::size_t base = slash == std::string::npos ? 0 : slash + 1;
    const auto dot = member.find('.', base);
    if (dot == std::string::npos || dot == base || is_meta(std::string_view(member).substr(base, dot - base))) return;
    std::string extension = member.substr(dot + 1);
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (sample_.key != member.substr(0, dot) || sample_.parts.count(extension) > 0) {
      close_sample();
      sample_.key = member.substr(0, dot);
    }
    // After a header has been read, what libarchive has consumed is where the data begins.
    Part part;
    part.member.offset = static_cast<std::uint64_t>(archive_filter_bytes(reader_, 0));
    const auto size = static_cast<std::int64_t>(archive_entry_size(entry));
    if (archive_entry_hardlink(entry) != nullptr || archive_entry_sparse_count(entry) > 0) {
      part.problem = "is a link or has holes";
    } else if (size > kLargestMember || size < 0) {
      part.problem = "is larger than 4 GiB";
    } else {
      part.member.size = static_cast<std::uint32_t>(size);
      reached_ = std::max(reached_, part.member.offset + part.member.size);
      const auto& sources = rules_.source_keys();
      if (std::find(sources.begin(), sources.end(), extension) != sources.end()) read(part, size);
    }
    sample_.parts[extension] = std::move(part);
  }

  void read(Part& part, std::int64_t size) {
    if (size > kLargestText) {
      part.problem = "is larger than 16 MiB";
      return;
    }
    part.bytes.resize(static_cast<std::size_t>(size));
    std::size_t at = 0;
    while (at < part.bytes.size()) {
      const la_ssize_t got = archive_read_data(reader_, part.bytes.data() + at, part.bytes.size() - at);
      if (got < 0) check(static_cast<int>(got));
      if (got <= 0) fail("it is cut short");
      at += static_cast<std::size_t>(got);
    }
    whole_ = std::max(whole_, part.member.offset + part.member.size);
  }

  void skip(const std::string& key, const std::string& reason) {
    if (!at_damage_) skipped_.emplace_back(key, reason);  // (what is missing may lie behind the damage, which is one skipped sample)
  }
  // A picture without a caption or a caption without a picture; two of one key are one sample, whose parts lie apart.
  void skip_half(const std::string& key, bool has_picture, const std::string& reason) {
    const auto [it, is_new] = halves_.try_emplace(hash_bytes(key.data(), key.size()), Half{skipped_.size(), has_picture});
    if (is_new || it->second.has_picture == has_picture || at_damage_) return skip(key, reason);
    skipped_[it->second.skipped].second =
        "its picture and its caption do not lie next to each other; pack the tar anew with tar --sort=name";
    halves_.erase(it);
  }

  // The sample is complete: adds it, or says why not.
  void close_sample() {
    const Sample sample = std::exchange(sample_, {});
    if (sample.parts.empty()) return;
    const Part* image = nullptr;
    for (const std::string& key : rules_.picture_keys()) {
      const auto it = sample.parts.find(key);
      if (it != sample.parts.end() && (image == nullptr || image->member.size == 0)) image = &it->second;
    }
    if (image == nullptr) {
      const auto& sources = rules_.source_keys();
      const bool has_caption =
          std::any_of(sources.begin(), sources.end(), [&](const std::string& key) { return sample.parts.count(key) > 0; });
      const std::string reason = "no picture (" + listed(rules_.image_keys()) + ")";
      return has_caption ? skip_half(sample.key, false, reason) : skip(sample.key, reason);
    }
    if (!image->problem.empty()) return skip(sample.key, "the picture " + image->problem);
    if (image->member.size == 0) return skip(sample.key, "the picture is empty (0 bytes)");
    std::string problem;
    for (const std::string& key : rules_.source_keys()) {
      const auto it = sample.parts.find(key);
      if (it == sample.parts.end()) continue;
      const Part& text = it->second;
      const std::string encoding = encoding_problem(text.bytes);
      std::vector<Caption> captions;
      if (text.problem.empty() && encoding.empty()) captions = rules_.read(text.bytes);
      if (captions.empty()) {
        problem = !text.problem.empty() ? "the caption's member " + text.problem
                  : !encoding.empty()   ? "the caption is " + encoding
                  : key == "json"       ? "no caption in its .json under the keys of --json-text-key"
                                        : "the caption is empty";
        continue;
      }
      const auto json = sample.parts.find("json");
      builder_.add(sample.key, image->member, text.member, json != sample.parts.end() ? json->second.member : Member{}, captions,
                   text.bytes);
      return;
    }
    if (problem.empty())
      return skip_half(sample.key, true, std::string(kNoCaption) + listed(rules_.source_keys()) + ")" + among(sample.parts));
    skip(sample.key, problem);
  }

  InputFile file_;
  const CaptionRules& rules_;
  bool compressed_;
  ShardIndexBuilder builder_;
  std::string damage_;  // what is wrong with the shard
  bool at_damage_ = false;
  archive* reader_ = nullptr;
  Sample sample_;
  struct Half {
    std::size_t skipped = 0;  // which of skipped_
    bool has_picture = false;
  };
  std::vector<std::pair<std::string, std::string>> skipped_;  // key, reason
  std::unordered_map<std::uint64_t, Half> halves_;            // by the hash of the key
  std::uint64_t reached_ = 0, stream_size_ = 0;
  std::uint64_t whole_ = 0;  // up to where the bytes are known to be there
};

// The index in this file, if it is there and is that of the shard as it lies there now.
std::shared_ptr<const ShardIndex> usable(const std::string& path, const InputFile& shard, const CaptionRules& rules) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return nullptr;
  try {
    auto index = ShardIndex::from_file(path);
    const bool current =
        index->shard_size() == shard.size() && index->shard_modified() == shard.modified() && index->rules() == rules.digest();
    return current ? index : nullptr;
  } catch (const FileError& e) {
    std::fprintf(stderr, "note: %s\n", e.what());
    return nullptr;
  }
}

bool store(const std::string& path, const std::string& bytes) {
  try {
    std::error_code ignored;
    fs::create_directories(fs::path(path).parent_path(), ignored);
    atomic_write(path, bytes);
    return true;
  } catch (const FileError&) {
    return false;
  }
}

std::shared_ptr<const ShardIndex> open_index(const std::string& shard, const CaptionRules& rules, std::atomic<int>& made) {
  const InputFile file(shard);
  const std::array<std::string, 2> places{index_path_beside(shard), index_path_in_cache(shard)};
  for (const std::string& place : places) {
    if (place.empty()) continue;
    if (auto index = usable(place, file, rules)) return index;
  }
  TarPass pass(shard, rules);
  std::string bytes = pass.run();
  ++made;
  // Damage may be one of reading, so it is looked for again. A shard that was written just now may be written again within the clock's
  // resolution, with the same size: its index is not kept.
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  if (pass.damaged() || now - file.modified() < kSettled) return ShardIndex::from_bytes(std::move(bytes), shard);
  for (const std::string& place : places) {
    if (!place.empty() && store(place, bytes)) return ShardIndex::from_file(place);
  }
  return ShardIndex::from_bytes(std::move(bytes), shard);  // nowhere to keep it: it is made again next time
}

}  // namespace

bool is_compressed(const InputFile& file) {
  std::array<unsigned char, 4> magic{};
  file.read_at(0, magic.data(), std::min<std::size_t>(magic.size(), static_cast<std::size_t>(file.size())));
  return (magic[0] == 0x1F && magic[1] == 0x8B) || magic == std::array<unsigned char, 4>{0x28, 0xB5, 0x2F, 0xFD};
}

void refuse_foreign_packing(const InputFile& file) {
  struct Packing {
    std::size_t at;  // (a plain tar begins with a name, which may be anything short)
    std::string_view magic;
    const char *name, *remedy;
  };
  constexpr const char* kTarOfFolder = "unpack it into a folder, and tar --sort=name -C FOLDER -cf NEW.tar . makes a shard";
  const std::array<Packing, 5> packings{{{0, "\xFD\x37zXZ", "xz", "xz -dc FILE | zstd > NEW.tar.zst makes one"},
                                         {4, "1AY&SY", "bzip2", "bzip2 -dc FILE | zstd > NEW.tar.zst makes one"},
                                         {0, "\x04\x22\x4D\x18", "lz4", "lz4 -dc FILE | zstd > NEW.tar.zst makes one"},
                                         {0, "PK\x03\x04", "zip", kTarOfFolder},
                                         {0, "7z\xBC\xAF\x27\x1C", "7z", kTarOfFolder}}};
  std::string start(std::min<std::size_t>(10, static_cast<std::size_t>(file.size())), '\0');
  file.read_at(0, start.data(), start.size());
  for (const Packing& p : packings) {
    if (start.size() < p.at || !std::string_view(start).substr(p.at).starts_with(p.magic)) continue;
    throw FileError(std::string("a shard is packed by ") + p.name + ", and plain tars, .tar.gz and .tar.zst are read; " + file.path() +
                    "; " + p.remedy);
  }
}

std::string index_tar(const std::string& path, const CaptionRules& rules, const std::string& damage) {
  return TarPass(path, rules, damage).run();
}

std::string index_path_beside(const std::string& shard) { return shard + kIndexEnding; }

std::string index_path_in_cache(const std::string& shard) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (cache != nullptr && *cache != '\0') {
    folder = cache;
  } else if (home != nullptr && *home != '\0') {
    folder = fs::path(home) / ".cache";
  } else {
    return {};
  }
  const std::string path = fs::absolute(shard).lexically_normal().string();
  char name[17];
  std::snprintf(name, sizeof name, "%016llx", static_cast<unsigned long long>(hash_bytes(path.data(), path.size())));
  return (folder / "twinlens" / (std::string(name) + kIndexEnding)).string();
}

std::vector<std::shared_ptr<const ShardIndex>> open_indices(const std::vector<std::string>& shards, const CaptionRules& rules) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::shared_ptr<const ShardIndex>> out(shards.size());
  std::vector<std::exception_ptr> errors(shards.size());
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::atomic<int> made{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < shards.size() && !failed; i = next++) {
      try {
        out[i] = open_index(shards[i], rules, made);
      } catch (...) {
        errors[i] = std::current_exception();
        failed = true;
      }
    }
  };
  std::vector<std::thread> threads;
  const std::size_t count = std::min<std::size_t>({shards.size(), 8, std::max(1U, std::thread::hardware_concurrency())});
  for (std::size_t i = 1; i < count; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error != nullptr) std::rethrow_exception(error);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (made > 0 && seconds > 2.0) std::fprintf(stderr, "indexed %d of %zu shards in %.1f s\n", made.load(), shards.size(), seconds);
  return out;
}

}  // namespace twinlens
