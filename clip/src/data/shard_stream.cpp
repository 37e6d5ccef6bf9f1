#include "clip/src/data/shard_stream.h"

#include <algorithm>
#include <archive.h>
#include <archive_entry.h>

#include "clip/src/data/tar_reading.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr std::size_t kThreads = 2;      // that unpack: gzip gives some 250 MB/s each
constexpr std::size_t kMostCursors = 8;  // open streams

}  // namespace

StreamCursor::StreamCursor(const std::string& path, const ShardIndex& index) : path_(path), reader_(archive_read_new(), archive_read_free) {
  const InputFile file(path);
  if (file.size() != index.shard_size() || file.modified() != index.shard_modified()) {
    throw FileError("the shard has changed since it was indexed; " + path + "; start again");
  }
  if (!open_unpacking(reader_.get(), path)) {
    throw FileError("shard cannot be unpacked: " + std::string(archive_error_string(reader_.get())) + "; " + path + "; fetch it again");
  }
}

std::string StreamCursor::read(std::uint64_t offset, std::size_t count) {
  std::string bytes(std::max<std::size_t>(count, 1 << 16), '\0');
  std::size_t have = 0;
  const auto pull = [&](std::size_t wanted) {
    const la_ssize_t got = archive_read_data(reader_.get(), bytes.data() + have, wanted);
    if (got <= 0) {
      throw FileError("shard is damaged: the compressed data is cut short or wrong; " + path_ + "; fetch it again");
    }
    position_ += static_cast<std::uint64_t>(got);
    return static_cast<std::size_t>(got);
  };
  while (position_ < offset) pull(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), offset - position_)));
  while (have < count) have += pull(count - have);
  bytes.resize(count);
  return bytes;
}

ShardStreams::ShardStreams(std::vector<std::string> paths, std::vector<std::shared_ptr<const ShardIndex>> indices)
    : paths_(std::move(paths)), indices_(std::move(indices)) {
  for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { work(); });
}

ShardStreams::~ShardStreams() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  asked_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// The open stream of the shard that stands closest before the offset, or a new one. Called without the lock.
std::unique_ptr<StreamCursor> ShardStreams::cursor_before(std::size_t shard, std::uint64_t offset) {
  {
    const std::lock_guard lock(mutex_);
    auto best = cursors_.end();
    for (auto it = cursors_.begin(); it != cursors_.end(); ++it) {
      if (it->first != shard || it->second->position() > offset) continue;
      if (best == cursors_.end() || it->second->position() > best->second->position()) best = it;
    }
    if (best != cursors_.end()) {
      auto cursor = std::move(best->second);
      cursors_.erase(best);
      return cursor;
    }
  }
  return std::make_unique<StreamCursor>(paths_[shard], *indices_[shard]);
}

void ShardStreams::keep_cursor(std::size_t shard, std::unique_ptr<StreamCursor> cursor) {
  std::unique_ptr<StreamCursor> dropped;  // closed without the lock
  const std::lock_guard lock(mutex_);
  cursors_.emplace_back(shard, std::move(cursor));
  if (cursors_.size() > kMostCursors) {
    dropped = std::move(cursors_.front().second);
    cursors_.erase(cursors_.begin());
  }
}

std::string ShardStreams::read_image(std::size_t shard, std::int64_t sample) {
  {
    std::unique_lock lock(mutex_);
    const Key key{shard, sample};
    // (A slot can go away while it is waited for, when blocks are announced faster than they are used.)
    ready_.wait(lock, [&] {
      const auto it = slots_.find(key);
      return it == slots_.end() || it->second.ready;
    });
    const auto it = slots_.find(key);
    if (it != slots_.end()) {
      if (!it->second.error.empty()) throw FileError(it->second.error);
      return it->second.bytes;
    }
  }
  const ShardRecord& record = indices_[shard]->record(sample);
  return read(shard, {record.image, record.image_size});
}

std::string ShardStreams::read(std::size_t shard, const Member& member) {
  auto cursor = cursor_before(shard, member.offset);
  std::string bytes = cursor->read(member.offset, member.size);
  keep_cursor(shard, std::move(cursor));
  return bytes;
}

void ShardStreams::read_ahead(const std::vector<Key>& samples, std::int64_t blocks) {
  {
    const std::lock_guard lock(mutex_);
    ++block_;
    for (auto it = slots_.begin(); it != slots_.end();) {
      it = it->second.block + static_cast<std::uint64_t>(blocks) <= block_ ? slots_.erase(it) : std::next(it);
    }
    for (const Key& key : samples) {
      Slot& slot = slots_[key];
      slot.block = block_;
      if (slot.ready) continue;  // still there from an earlier block
      if (requests_.empty() || requests_.back().block != block_ || requests_.back().shard != key.first) {
        requests_.push_back({key.first, block_, {}});
      }
      requests_.back().samples.push_back(key.second);
    }
  }
  ready_.notify_all();
  asked_.notify_all();
}

void ShardStreams::work() {
  while (true) {
    Request request;
    {
      std::unique_lock lock(mutex_);
      asked_.wait(lock, [&] { return stop_ || !requests_.empty(); });
      if (stop_) return;
      request = std::move(requests_.front());
      requests_.erase(requests_.begin());
    }
    unpack(request);
  }
}

void ShardStreams::unpack(const Request& request) {
  const ShardIndex& index = *indices_[request.shard];
  std::unique_ptr<StreamCursor> cursor;
  std::string error;
  for (const std::int64_t sample : request.samples) {
    const ShardRecord& record = index.record(sample);
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return;
      const auto it = slots_.find({request.shard, sample});
      if (it == slots_.end() || it->second.ready) continue;  // no longer wanted, or there already
    }
    std::string bytes;
    try {
      if (cursor == nullptr && error.empty()) cursor = cursor_before(request.shard, record.image);
      if (error.empty()) bytes = cursor->read(record.image, record.image_size);
    } catch (const std::exception& e) {
      error = e.what();
    }
    {
      const std::lock_guard lock(mutex_);
      const auto it = slots_.find({request.shard, sample});
      if (it == slots_.end()) continue;
      it->second.ready = true;
      it->second.bytes = std::move(bytes);
      it->second.error = error;
    }
    ready_.notify_all();
  }
  if (cursor != nullptr && error.empty()) keep_cursor(request.shard, std::move(cursor));
}

}  // namespace twinlens
