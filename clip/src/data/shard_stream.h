#pragma once
// Pictures out of compressed shards, which can only be read from the front: they are unpacked in order, ahead of need, into a buffer.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "clip/src/data/shard_index.h"

struct archive;

namespace twinlens {

// The unpacked bytes of one shard, forwards. Not thread-safe.
class StreamCursor {
 public:
  // Throws FileError when the file is not the one that was indexed.
  StreamCursor(const std::string& path, const ShardIndex& index);
  std::uint64_t position() const { return position_; }
  // Bytes [offset, offset + count), with offset at or behind position().
  std::string read(std::uint64_t offset, std::size_t count);

 private:
  std::string path_;
  std::unique_ptr<archive, int (*)(archive*)> reader_;
  std::uint64_t position_ = 0;
};

// All shards. Thread-safe.
class ShardStreams {
 public:
  ShardStreams(std::vector<std::string> paths, std::vector<std::shared_ptr<const ShardIndex>> indices);
  ~ShardStreams();
  ShardStreams(const ShardStreams&) = delete;
  ShardStreams& operator=(const ShardStreams&) = delete;

  // A sample's picture. From the buffer, when it was announced by read_ahead; otherwise by read(). Throws FileError.
  std::string read_image(std::size_t shard, std::int64_t sample);
  // Any member: the shard is unpacked up to there, which is fast only where the last one read lies shortly before. Throws FileError.
  std::string read(std::size_t shard, const Member& member);
  // A block of pictures that will be asked for: (shard, sample in it), in storage order. Returns at once. The newest `blocks` are kept.
  void read_ahead(const std::vector<std::pair<std::size_t, std::int64_t>>& samples, std::int64_t blocks);

 private:
  using Key = std::pair<std::size_t, std::int64_t>;
  struct Slot {
    std::uint64_t block = 0;
    bool ready = false;
    std::string bytes, error;
  };
  struct Request {
    std::size_t shard = 0;
    std::uint64_t block = 0;
    std::vector<std::int64_t> samples;
  };
  void work();
  void unpack(const Request& request);
  std::unique_ptr<StreamCursor> cursor_before(std::size_t shard, std::uint64_t offset);
  void keep_cursor(std::size_t shard, std::unique_ptr<StreamCursor> cursor);

  const std::vector<std::string> paths_;
  const std::vector<std::shared_ptr<const ShardIndex>> indices_;
  std::mutex mutex_;
  std::condition_variable asked_, ready_;
  std::map<Key, Slot> slots_;
  std::vector<Request> requests_;                                               // oldest first
  std::vector<std::pair<std::size_t, std::unique_ptr<StreamCursor>>> cursors_;  // by last use
  std::uint64_t block_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace twinlens
