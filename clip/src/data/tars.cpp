// WebDataset tars: indices give offsets; samples are read by pread, or out of a stream where a shard is compressed.

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unistd.h>

#include "clip/src/data/dataset_base.h"
#include "clip/src/data/file_pool.h"
#include "clip/src/data/shard_stream.h"
#include "clip/src/data/tar_index.h"
#include "clip/src/data/tar_reading.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kUnpackLimit = 256'000'000;  // bytes of compressed shards that `auto` unpacks

// What a compressed shard holds, in a file that goes away when it is closed: samples are read at random, which compression does not allow.
class Unpacked {
 public:
  explicit Unpacked(const std::string& path) {
    // (temp_directory_path() throws where TMPDIR is no folder, and does not say which.)
    const char* const folder = std::getenv("TMPDIR");
    std::string temporary = (fs::path(folder != nullptr && *folder != '\0' ? folder : "/tmp") / "twinlens-XXXXXX").string();
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
  const std::string& damage() const { return damage_; }  // of the compressed data, behind what could be unpacked; empty: none

 private:
  void copy(const std::string& from) {
    const std::unique_ptr<archive, int (*)(archive*)> in(archive_read_new(), archive_read_free);
    std::ofstream out(path_, std::ios::binary | std::ios::trunc);
    bool good = open_unpacking(in.get(), from);
    // (archive_read_data would drop the good blocks before a bad one.)
    for (int status = ARCHIVE_OK; good && out && status != ARCHIVE_EOF;) {
      const void* block = nullptr;
      std::size_t size = 0;
      la_int64_t offset = 0;
      status = archive_read_data_block(in.get(), &block, &size, &offset);
      good = status == ARCHIVE_OK || status == ARCHIVE_EOF;
      if (status == ARCHIVE_OK) out.write(static_cast<const char*>(block), static_cast<std::streamsize>(size));
    }
    if (!good) damage_ = "the compressed data is cut short or wrong";
    out.close();
    if (!out)
      throw FileError("shard cannot be unpacked to " + path_ + "; " + from + "; set TMPDIR to a place with room, or unpack it yourself");
  }

  std::string path_, damage_;
};

// What makes samples of shards that have none, by the reason of the first that cannot be used.
std::string remedy(const std::string& reason, const DatasetOptions& options) {
  const std::size_t members = reason.find(" among ");
  if (!reason.starts_with(kNoCaption) || members == std::string::npos)
    return "a sample is KEY.jpg (png, jpeg, webp) and KEY.txt, next to each other";
  if (!options.json_text_key.empty())
    return "--json-text-key reads .json members alone; leave it out, and name the extension of the captions by --text-key";
  const bool has_labels = reason.find(" cls ", members) != std::string::npos || reason.find(" cls,", members) != std::string::npos;
  return has_labels
             ? "labels in .cls members are for eval --task zeroshot --text-key cls --label cls --classes classnames.txt; captions of "
               "another extension are named by --text-key"
             : "name the extension of the captions by --text-key, or the fields of .json members that hold them by --json-text-key";
}

// The files' names; of those with one name in different folders the paths.
std::vector<std::string> names_of(const std::vector<std::string>& paths) {
  std::map<std::string, std::string> path_of;
  std::set<std::string> shared;
  const auto name_in = [](const std::string& path) { return fs::path(path).filename().string(); };
  for (const std::string& path : paths) {
    if (path_of.try_emplace(name_in(path), path).first->second != path) shared.insert(name_in(path));
  }
  std::vector<std::string> names;
  for (const std::string& path : paths) names.push_back(shared.count(name_in(path)) != 0 ? path : name_in(path));
  return names;
}

class TarDataset final : public Dataset {
 public:
  TarDataset(const std::vector<SpecPart>& parts, const DatasetOptions& options) : rules_(options) {
    std::vector<std::size_t> part_begins;
    for (const SpecPart& part : parts) {
      part_begins.push_back(paths_.size());
      paths_.insert(paths_.end(), part.paths.begin(), part.paths.end());
    }
    part_begins.push_back(paths_.size());
    names_ = names_of(paths_);
    choose_form(options.compressed);
    streamed_ ? open_streams() : open_plain();
    begins_.push_back(0);
    for (std::size_t s = 0; s < paths_.size(); ++s) {
      begins_.push_back(begins_.back() + (rules_.all() ? indices_[s]->captions() : indices_[s]->samples()));
      for (SkippedSample& skipped : indices_[s]->skipped()) skipped_.push_back({label(s, skipped.key), std::move(skipped.reason)});
    }
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const std::int64_t begin = begins_[part_begins[p]];
      sources_.push_back({begin, begins_[part_begins[p + 1]] - begin, parts[p].weight});
    }
    if (size() == 0) {
      const std::string skipped = skipped_.empty() ? ""
                                                   : " (" + std::to_string(skipped_.size()) + " cannot be used, first: " + skipped_[0].key +
                                                         ": " + skipped_[0].reason + ")";
      throw FileError("no samples; " + paths_.front() + skipped + "; " + remedy(skipped_.empty() ? "" : skipped_[0].reason, options));
    }
  }

  std::int64_t size() const override { return begins_.back(); }
  std::string key(std::int64_t i) const override {
    const Place p = at(i);
    return label(p.shard, indices_[p.shard]->key(p.sample));
  }
  std::string image_bytes(std::int64_t i) const override {
    const Place p = at(i);
    if (streamed_) return streams_->read_image(p.shard, p.sample);
    const ShardRecord& r = indices_[p.shard]->record(p.sample);
    return read(p.shard, {r.image, r.image_size});
  }
  std::string caption(std::int64_t i) const override {
    const Place p = at(i);
    return text_of(p, p.caption);
  }
  std::int64_t caption_id(std::int64_t i) const override {
    const Place p = at(i);
    return indices_[p.shard]->caption_ids(p.sample)[p.caption];
  }
  std::string drawn_caption(std::int64_t i, std::uint64_t draw) const override {
    const Place p = at(i);
    return text_of(p, drawn(p, draw));
  }
  std::int64_t drawn_caption_id(std::int64_t i, std::uint64_t draw) const override {
    const Place p = at(i);
    return indices_[p.shard]->caption_ids(p.sample)[drawn(p, draw)];
  }
  std::string field(std::int64_t i, const std::string& name) const override {
    const Place p = at(i);
    const auto& sources = rules_.source_keys();
    if (sources.size() == 1 && sources.front() == name) return text_of(p, p.caption);
    const ShardRecord& r = indices_[p.shard]->record(p.sample);
    if (r.json_size == 0) return {};
    const auto json = nlohmann::json::parse(read(p.shard, {r.json, r.json_size}), nullptr, false);
    if (!json.is_object() || !json.contains(name)) return {};
    return json[name].is_string() ? json[name].get<std::string>() : json[name].dump();
  }
  const std::vector<SkippedSample>& skipped() const override { return skipped_; }
  std::string fingerprint() const override {
    std::uint64_t h = rules_.all() ? 1 : 0;
    for (std::size_t s = 0; s < paths_.size(); ++s) {
      const std::string name = fs::path(paths_[s]).filename().string() + std::to_string(indices_[s]->shard_size());
      h = hash_bytes(name.data(), name.size(), h ^ indices_[s]->content());
    }
    return std::to_string(size()) + "-" + std::to_string(h);
  }
  std::vector<DataSource> sources() const override { return sources_; }
  std::vector<std::int64_t> file_bounds() const override { return begins_; }
  bool sequential() const override { return streamed_; }
  void read_ahead(const std::vector<std::int64_t>& samples, std::int64_t blocks) const override;

 private:
  struct Place {
    std::size_t shard = 0;
    std::int64_t sample = 0;  // in the shard
    std::size_t caption = 0;  // of the sample
  };

  void choose_form(const std::string& wanted) {
    std::uint64_t bytes = 0;
    for (const std::string& path : paths_) {
      const InputFile file(path);
      refuse_foreign_packing(file);
      compressed_.push_back(is_compressed(file));
      if (compressed_.back()) bytes += file.size();
    }
    streamed_ = bytes > 0 && (wanted == "stream" || (wanted == "auto" && bytes > kUnpackLimit));
  }
  void open_streams() {
    indices_ = open_indices(paths_, rules_);
    for (std::size_t s = 0; s < paths_.size(); ++s) files_.add(paths_[s], indices_[s]->shard_size(), indices_[s]->shard_modified());
    streams_ = std::make_unique<ShardStreams>(paths_, indices_);
  }
  void open_plain() {
    std::vector<std::string> plain;
    for (std::size_t s = 0; s < paths_.size(); ++s) {
      if (!compressed_[s]) plain.push_back(paths_[s]);
    }
    auto indices = open_indices(plain, rules_);
    std::size_t next = 0;
    for (std::size_t s = 0; s < paths_.size(); ++s) {
      if (!compressed_[s]) {
        indices_.push_back(std::move(indices[next++]));
        files_.add(paths_[s], indices_[s]->shard_size(), indices_[s]->shard_modified());
      } else {
        const Unpacked unpacked(paths_[s]);
        indices_.push_back(ShardIndex::from_bytes(index_tar(unpacked.path(), rules_, unpacked.damage()), paths_[s]));
        files_.add_open(InputFile(unpacked.path()));
      }
    }
  }

  Place at(std::int64_t i) const {
    if (i < 0 || i >= size()) throw std::out_of_range("dataset: no sample " + std::to_string(i));
    const auto after = std::upper_bound(begins_.begin(), begins_.end(), i);
    Place p;
    p.shard = static_cast<std::size_t>(after - begins_.begin()) - 1;
    p.sample = i - begins_[p.shard];
    if (rules_.all()) {
      const std::int64_t caption = p.sample;
      p.sample = indices_[p.shard]->sample_of_caption(caption);
      p.caption = static_cast<std::size_t>(caption - std::int64_t{indices_[p.shard]->record(p.sample).caption});
    }
    return p;
  }
  std::size_t drawn(const Place& p, std::uint64_t draw) const {
    if (rules_.all()) return p.caption;
    const ShardIndex& index = *indices_[p.shard];
    return rules_.pick(index.caption_keys(p.sample), index.caption_count(p.sample), draw);
  }
  std::string text_of(const Place& p, std::size_t which) const {
    const ShardIndex& index = *indices_[p.shard];
    const ShardRecord& r = index.record(p.sample);
    const std::vector<Caption> captions =
        rules_.read(index.compressed() ? std::string(index.text(p.sample)) : read(p.shard, {r.text, r.text_size}));
    if (which >= captions.size()) {
      throw FileError("the caption is not what was indexed; " + label(p.shard, index.key(p.sample)) +
                      "; the shard was changed: start again");
    }
    return captions[which].text;
  }
  std::string label(std::size_t shard, const std::string& key) const {
    const std::string& name = names_[shard];
    return key.empty() ? name : name + ":" + key;  // (the damaged rest of a shard has no key)
  }
  std::string read(std::size_t shard, const Member& member) const {
    if (streamed_ && compressed_[shard]) return streams_->read(shard, member);
    std::string bytes(member.size, '\0');
    files_.open(shard)->read_at(member.offset, bytes.data(), bytes.size());
    return bytes;
  }

  CaptionRules rules_;
  std::vector<std::string> paths_, names_;  // (names: as much of the paths as tells them apart)
  std::vector<bool> compressed_;
  bool streamed_ = false;
  std::vector<std::shared_ptr<const ShardIndex>> indices_;
  std::vector<std::int64_t> begins_;  // first sample of each shard
  std::vector<DataSource> sources_;
  std::vector<SkippedSample> skipped_;
  FilePool files_;
  std::unique_ptr<ShardStreams> streams_;
};

void TarDataset::read_ahead(const std::vector<std::int64_t>& samples, std::int64_t blocks) const {
  if (streamed_) {
    std::vector<std::pair<std::size_t, std::int64_t>> wanted;
    for (const std::int64_t i : samples) {
      const Place p = at(i);
      if (wanted.empty() || wanted.back() != std::make_pair(p.shard, p.sample)) wanted.emplace_back(p.shard, p.sample);
    }
    return streams_->read_ahead(wanted, blocks);
  }
  // Ranges that lie close together are one.
  constexpr std::uint64_t kGap = 1 << 20;
  std::size_t shard = 0;
  std::uint64_t begin = 0, end = 0;
  const auto announce = [&] {
    if (end > begin) files_.open(shard)->will_need(begin, end - begin);
  };
  for (const std::int64_t i : samples) {
    const Place p = at(i);
    const ShardRecord& r = indices_[p.shard]->record(p.sample);
    const std::uint64_t from = std::min(r.image, r.text), to = std::max(r.image + r.image_size, r.text + r.text_size);
    if (end == begin || p.shard != shard || from < begin || from > end + kGap) {
      announce();
      shard = p.shard;
      begin = from;
      end = to;
    }
    end = std::max(end, to);
  }
  announce();
}

}  // namespace

std::shared_ptr<const Dataset> open_tars(const std::vector<SpecPart>& parts, const DatasetOptions& options) {
  return std::make_shared<TarDataset>(parts, options);
}

}  // namespace twinlens
