#pragma once
// What is known of one shard: where each sample's members lie, its key, the ids of its captions, and what could not be used. Built in one
// pass over the tar, kept in a file beside it (or in a cache folder where that place is read-only), and mapped from there: 10 million
// samples take about 0.7 GB that all processes share.
//
// The file, little endian: ShardHeader; samples + 1 records (the last bounds the others); caption ids (i64); caption keys (u8, padded to
// 8); sample keys; texts (of compressed shards: the captions' members, for what lies in a stream cannot be looked up); skipped samples as
// key NUL reason NUL. It is used only when its sums are right, every offset lies inside the shard, and size and time of change are the shard's.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clip/src/data/captions.h"

#include "twinlens/core/file.h"

namespace twinlens {

// A member's bytes: in the tar, for compressed shards in the unpacked stream.
struct Member {
  std::uint64_t offset = 0;
  std::uint32_t size = 0;
};

struct ShardRecord {
  std::uint64_t image = 0, text = 0, json = 0;  // offsets; text of compressed shards: in texts
  std::uint32_t image_size = 0, text_size = 0, json_size = 0;
  std::uint32_t key = 0;      // where its key begins in keys
  std::uint32_t caption = 0;  // its first caption
  std::uint32_t unused = 0;
};
static_assert(sizeof(ShardRecord) == 48);

struct ShardHeader {
  char magic[8];
  std::uint64_t shard_size = 0;
  std::int64_t shard_modified = 0;
  std::uint64_t rules = 0;    // CaptionRules::digest
  std::uint64_t content = 0;  // hash of keys and captions
  std::uint64_t samples = 0, captions = 0, key_bytes = 0, text_bytes = 0, skipped_bytes = 0;
  std::uint64_t stream_size = 0;  // bytes of the unpacked stream
  std::uint32_t compressed = 0;
  std::uint32_t body_sum = 0, header_sum = 0;  // CRC-32C; of the header with header_sum = 0
  std::uint32_t unused = 0;
};
static_assert(sizeof(ShardHeader) == 104);

class ShardIndex {
 public:
  std::int64_t samples() const { return static_cast<std::int64_t>(header_.samples); }
  std::int64_t captions() const { return static_cast<std::int64_t>(header_.captions); }
  bool compressed() const { return header_.compressed != 0; }
  std::uint64_t content() const { return header_.content; }
  std::uint64_t rules() const { return header_.rules; }
  std::uint64_t shard_size() const { return header_.shard_size; }
  std::int64_t shard_modified() const { return header_.shard_modified; }
  std::size_t bytes() const { return view_.size(); }

  const ShardRecord& record(std::int64_t sample) const { return records_[sample]; }
  std::string key(std::int64_t sample) const;
  std::size_t caption_count(std::int64_t sample) const { return records_[sample + 1].caption - records_[sample].caption; }
  // One past each other for the captions of a sample.
  const std::int64_t* caption_ids(std::int64_t sample) const { return ids_ + records_[sample].caption; }
  const std::uint8_t* caption_keys(std::int64_t sample) const { return caption_keys_ + records_[sample].caption; }
  // The sample that caption number `caption` of the shard belongs to.
  std::int64_t sample_of_caption(std::int64_t caption) const;
  std::string_view text(std::int64_t sample) const;  // of compressed shards: the member that holds the captions
  std::vector<SkippedSample> skipped() const;

  // Takes the bytes of an index, checked in full: nothing that passes can lead outside of them or of the shard. Throws FileError saying
  // what is wrong.
  static std::shared_ptr<const ShardIndex> from_bytes(std::string bytes, const std::string& name);
  static std::shared_ptr<const ShardIndex> from_file(const std::string& path);

 private:
  ShardIndex() = default;
  void adopt(const std::string& name);
  void check_records(const std::string& name) const;

  std::string owned_;
  std::unique_ptr<MappedFile> mapped_;
  std::string_view view_, keys_, texts_, skipped_;
  ShardHeader header_{};
  const ShardRecord* records_ = nullptr;
  const std::int64_t* ids_ = nullptr;
  const std::uint8_t* caption_keys_ = nullptr;
};

// Makes the bytes of an index, sample by sample.
class ShardIndexBuilder {
 public:
  explicit ShardIndexBuilder(bool compressed) { header_.compressed = compressed ? 1 : 0; }
  // `text` is where the captions came from; `source` its bytes, kept for compressed shards.
  void add(const std::string& key, Member image, Member text, Member json, const std::vector<Caption>& captions, const std::string& source);
  void skip(const std::string& key, const std::string& reason);
  std::int64_t samples() const { return static_cast<std::int64_t>(records_.size()); }
  std::string finish(std::uint64_t shard_size, std::int64_t shard_modified, std::uint64_t stream_size, std::uint64_t rules);

 private:
  ShardHeader header_{};
  std::vector<ShardRecord> records_;
  std::vector<std::int64_t> ids_;
  std::string caption_keys_, keys_, texts_, skipped_;
};

}  // namespace twinlens
