#include "twinlens/clip/loader.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <unordered_set>
#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "clip/src/card_pictures.h"
#include "clip/src/data/picture_cache.h"
#include "clip/src/run_report.h"

#include "twinlens/clip/image.h"
#include "twinlens/core/random.h"
#include "twinlens/kernels/error.h"

namespace twinlens {

std::vector<std::int64_t> epoch_order(const Dataset& data, std::int64_t global_batch, std::uint64_t seed, std::int64_t epoch, bool apart) {
  const EpochOrder order(data, {.global_batch = global_batch, .seed = seed, .apart = apart}, epoch);
  std::vector<std::int64_t> out(static_cast<std::size_t>(order.size()));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = order[static_cast<std::int64_t>(i)];
  return out;
}

OrderOptions order_options(const LoaderOptions& o) {
  return {o.batch_size * o.world, o.seed, o.equal_captions_apart, o.draw_captions, o.shuffle_buffer};
}

namespace {

// Workers have a queue before them and the step's threads wait for each other: where both want a core, the step's thread gets it.
void yield_to_the_step() {
#if defined(__linux__)
  const auto thread = static_cast<id_t>(syscall(SYS_gettid));
  static_cast<void>(setpriority(PRIO_PROCESS, thread, getpriority(PRIO_PROCESS, thread) + 10));  // no harm where it is not allowed
#endif
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

// What the workers share.
struct Loader::Work {
  // A batch, or why there is none, and what was found unusable on the way: given out in the order of batches, whoever was first.
  struct Made {
    LoadedBatch batch;
    std::vector<SkippedSample> bad;
    std::exception_ptr error;
  };

  static constexpr std::int64_t kEmptyEpochs = 100;  // in a row, until the loader gives up

  std::shared_ptr<const Dataset> data;
  std::shared_ptr<const Tokenizer> tokenizer;
  LoaderOptions options;
  std::unique_ptr<PictureCache> decoded;

  std::mutex mutex;
  std::condition_variable room, ready;
  std::map<std::pair<std::int64_t, std::int64_t>, Made> done;        // by (epoch, index)
  std::map<std::int64_t, std::shared_ptr<const EpochOrder>> orders;  // by epoch
  std::pair<std::int64_t, std::int64_t> claim;                       // next batch a worker takes
  std::pair<std::int64_t, std::int64_t> wanted;                      // next batch next() gives
  std::pair<std::int64_t, std::int64_t> announced;                   // (epoch, place) up to which the dataset has been told
  std::int64_t ahead = 0;                                            // batches claimed and not given yet
  bool stop = false;
  std::vector<SkippedSample> reported;
  std::set<std::string> reported_keys;
  std::set<std::string> skipped_before;  // and not reported again so far
  std::vector<std::thread> threads;

  ~Work() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    room.notify_all();
    for (std::thread& t : threads) t.join();
  }

  std::int64_t global_batch() const { return options.batch_size * options.world; }

  // The order of an epoch; made once, kept while it is in use. Called with the lock held.
  std::shared_ptr<const EpochOrder> order(std::int64_t epoch) {
    auto& slot = orders[epoch];
    if (slot == nullptr) {
      slot = std::make_shared<const EpochOrder>(*data, order_options(options), epoch);
      while (!orders.empty() && orders.begin()->first < wanted.first) orders.erase(orders.begin());
    }
    return slot;
  }
  std::int64_t batches(std::int64_t epoch) { return order(epoch)->size() / global_batch(); }

  // The first batch of `epoch`, or of the next that has one: where captions are drawn, or samples of a source with a weight, those of an
  // epoch may not fill a batch without equal captions. Throws ConfigError where that goes on.
  std::pair<std::int64_t, std::int64_t> first_from(std::int64_t epoch) {
    const std::vector<DataSource> sources = data->sources();
    const bool draws = options.draw_captions || std::any_of(sources.begin(), sources.end(), [](const DataSource& source) {
                         return source.weight != std::floor(source.weight);
                       });
    const std::int64_t until = epoch + (options.equal_captions_apart && draws ? kEmptyEpochs : 1);
    for (; epoch < until; ++epoch) {
      if (batches(epoch) > 0) return {epoch, 0};
    }
    throw ConfigError(no_batch());
  }
  std::string no_batch() const {
    const std::vector<SkippedSample>& skipped = data->skipped();
    std::string remedy = "choose a smaller batch";
    if (!skipped.empty()) {
      remedy = "mend the " + std::to_string(skipped.size()) + " more that cannot be used (first: " + skipped[0].key + ": " +
               skipped[0].reason + "), or " + remedy;
    }
    return "loader: " + std::to_string(data->size()) + " samples do not fill one batch of " + std::to_string(global_batch()) +
           (options.equal_captions_apart ? " with all captions different" : "") + "; --batch-size times --accum-freq; " + remedy;
  }

  void advance(std::pair<std::int64_t, std::int64_t>& at) {
    if (++at.second >= batches(at.first)) at = first_from(at.first + 1);
  }

  // Throws when more than --max-skipped of the data is bad.
  void check_skipped() const {
    const auto is_bad = [](const SkippedSample& sample) { return !sample.by_rule; };
    const auto count = [&](const std::vector<SkippedSample>& all) { return std::count_if(all.begin(), all.end(), is_bad); };
    const std::int64_t bad = static_cast<std::int64_t>(skipped_before.size()) + count(reported);
    const std::int64_t total = data->size() + count(data->skipped());
    if (static_cast<double>(bad) <= options.max_skipped * static_cast<double>(total)) return;
    // (Those of an earlier part of the run are in its skipped.tsv only.)
    const auto worst = std::find_if(reported.begin(), reported.end(), is_bad);
    const std::string first = worst == reported.end() ? "see skipped.tsv" : "first: " + worst->key + ": " + worst->reason;
    throw FileError("loader: " + std::to_string(bad) + " of " + std::to_string(total) +
                    " samples cannot be used, more than --max-skipped allows; " + first + "; mend the data or raise --max-skipped");
  }

  void start(int workers);
  void worker();
  std::int64_t ahead_at_most() const { return options.workers + 2; }  // batches claimed and not taken
  // Blocks of an order with a buffer that those batches can lie in: what they span, begun and ended within a block, and the one announced.
  std::int64_t blocks_in_use() const {
    const std::int64_t buffer = std::max<std::int64_t>(1, options.shuffle_buffer);
    return (ahead_at_most() * global_batch() + buffer - 1) / buffer + 2;
  }
  std::vector<std::vector<std::int64_t>> blocks_to_announce(std::int64_t epoch, std::int64_t index);
  void make(Made& made, std::int64_t epoch, std::int64_t index, const EpochOrder& epoch_samples) const;
  std::shared_ptr<const Image> picture(std::int64_t sample, std::int64_t epoch, Made& made) const;
  std::int64_t caption_id(std::int64_t sample, std::int64_t epoch) const {
    return options.draw_captions ? data->drawn_caption_id(sample, caption_draw(options.seed, epoch, sample)) : data->caption_id(sample);
  }
  std::string caption(std::int64_t sample, std::int64_t epoch) const {
    return options.draw_captions ? data->drawn_caption(sample, caption_draw(options.seed, epoch, sample)) : data->caption(sample);
  }
};

// The augmented picture (the decoded one with device_transforms), or null when the sample cannot be used (and is noted).
std::shared_ptr<const Image> Loader::Work::picture(std::int64_t sample, std::int64_t epoch, Made& made) const {
  const auto start = std::chrono::steady_clock::now();
  const std::string key = data->key(sample);
  double reading = 0.0;
  std::shared_ptr<const Image> image;
  try {
    image = decoded->find(sample);
    if (image == nullptr) {
      const std::string bytes = data->image_bytes(sample);
      reading = seconds_since(start);
      DecodeOptions decode{options.max_image_pixels};
      if (options.fast_decode) {
        decode.least_scale = [&](std::int64_t width, std::int64_t height) {
          return least_scale(width, height, options.image_size, options.augment, options.seed, static_cast<std::uint64_t>(epoch), sample);
        };
      }
      image = std::make_shared<const Image>(decode_image(bytes, key, decode));
      decoded->keep(sample, image);
    }
    if (!options.device_transforms) {
      image = std::make_shared<const Image>(
          augment(*image, options.image_size, options.augment, options.seed, static_cast<std::uint64_t>(epoch), sample));
    }
  } catch (const FileError& e) {
    made.bad.push_back({key, e.what()});
    image = nullptr;
  }
  made.batch.read_seconds += reading;
  made.batch.decode_seconds += seconds_since(start) - reading;
  return image;
}

void Loader::Work::make(Made& made, std::int64_t epoch, std::int64_t index, const EpochOrder& epoch_samples) const {
  LoadedBatch& batch = made.batch;
  batch.epoch = epoch;
  batch.index = index;
  const std::int64_t s = options.image_size, bytes = s * s * 3, first = index * global_batch();
  const Shape shape{options.batch_size, s, s, 3};
  if (!options.device_transforms) batch.pixels = options.pinned ? empty_pinned(shape, DType::u8) : empty(shape, DType::u8);
  std::vector<PlannedPicture> planned;
  // What a replacement must differ from.
  std::unordered_set<std::int64_t> captions;
  for (std::int64_t i = 0; options.equal_captions_apart && i < global_batch(); ++i)
    captions.insert(caption_id(epoch_samples[first + i], epoch));
  for (std::int64_t i = 0; i < options.batch_size; ++i) {
    std::int64_t sample = epoch_samples[first + options.rank * options.batch_size + i];
    std::shared_ptr<const Image> image = picture(sample, epoch, made);
    if (image == nullptr && options.equal_captions_apart) captions.erase(caption_id(sample, epoch));
    // Bounded: give up after as many neighbours as may be bad.
    for (std::int64_t tries = 1, walked = 1; image == nullptr; ++walked) {
      if (tries >= 1000 || walked >= data->size()) {
        throw FileError("loader: no usable picture among " + std::to_string(tries) + " samples" +
                        (tries < walked ? ", and the batch has the captions of all others" : "") + "; near " + data->key(sample) +
                        "; mend the data (see skipped.tsv)");
      }
      sample = (sample + 1) % data->size();
      if (options.equal_captions_apart && captions.count(caption_id(sample, epoch)) > 0) continue;
      ++tries;
      image = picture(sample, epoch, made);
      if (image != nullptr && options.equal_captions_apart) captions.insert(caption_id(sample, epoch));
    }
    if (options.device_transforms) {
      planned.push_back({image, plan_augment(*image, s, options.augment, options.seed, static_cast<std::uint64_t>(epoch), sample)});
    } else {
      std::memcpy(batch.pixels.data<std::uint8_t>() + i * bytes, image->rgb.data(), static_cast<std::size_t>(bytes));
    }
    const auto start = std::chrono::steady_clock::now();
    const std::string text = caption(sample, epoch);
    const double reading = seconds_since(start);
    Tokens tokens = tokenizer->tokenize(text, options.context_length);
    batch.read_seconds += reading;
    batch.decode_seconds += seconds_since(start) - reading;
    batch.truncated += tokens.truncated ? 1 : 0;
    batch.captions.push_back(std::move(tokens.ids));
    batch.caption_ids.push_back(caption_id(sample, epoch));
    batch.samples.push_back(sample);
  }
  if (options.device_transforms) batch.packed = std::make_shared<const PackedPictures>(pack_pictures(std::move(planned), s));
}

// The blocks that the dataset should know of when this batch is begun and does not yet: those it touches, and one more. Of each, the
// samples of this rank, in storage order. Called with the lock held.
std::vector<std::vector<std::int64_t>> Loader::Work::blocks_to_announce(std::int64_t epoch, std::int64_t index) {
  std::vector<std::vector<std::int64_t>> out;
  std::shared_ptr<const EpochOrder> samples = order(epoch);
  if (samples->buffer() == 0) return out;
  const std::int64_t first = index * global_batch(), block = (first + global_batch() - 1) / samples->buffer();
  std::pair<std::int64_t, std::int64_t> until{epoch, std::min((block + 2) * samples->buffer(), samples->size())};
  if ((block + 1) * samples->buffer() >= samples->size()) until = {epoch + 1, std::min(samples->buffer(), order(epoch + 1)->size())};
  if (announced < std::make_pair(epoch, first)) announced = {epoch, first};
  while (announced < until) {
    samples = order(announced.first);
    const std::int64_t end = std::min((announced.second / samples->buffer() + 1) * samples->buffer(), samples->size());
    std::vector<std::int64_t> mine;
    for (std::int64_t place = announced.second; place < end; ++place) {
      if (place % global_batch() / options.batch_size == options.rank) mine.push_back((*samples)[place]);
    }
    std::sort(mine.begin(), mine.end());
    if (!mine.empty()) out.push_back(std::move(mine));
    announced.second = end;
    if (end >= samples->size()) announced = {announced.first + 1, 0};
  }
  return out;
}

// Those that were started end with this object, whatever happens here.
void Loader::Work::start(int workers) {
  threads.reserve(static_cast<std::size_t>(workers));
  try {
    while (static_cast<int>(threads.size()) < workers) threads.emplace_back([this] { worker(); });
  } catch (const std::system_error& error) {
    throw ConfigError("loader: only " + std::to_string(threads.size()) + " of " + std::to_string(workers) +
                      " threads can be started: " + error.what() + "; --workers; choose fewer");
  }
}

void Loader::Work::worker() {
  yield_to_the_step();
  std::unique_lock lock(mutex);
  while (true) {
    room.wait(lock, [&] { return stop || ahead < ahead_at_most(); });
    if (stop) return;
    const auto [epoch, index] = claim;
    ++ahead;
    Made made;
    try {
      advance(claim);
      const auto samples = order(epoch);
      const auto blocks = blocks_to_announce(epoch, index);
      lock.unlock();
      for (const auto& block : blocks) data->read_ahead(block, blocks_in_use());
      make(made, epoch, index, *samples);
    } catch (...) {
      made.error = std::current_exception();
    }
    if (!lock.owns_lock()) lock.lock();
    done.emplace(std::make_pair(epoch, index), std::move(made));
    ready.notify_all();
  }
}

Loader::Loader(std::shared_ptr<const Dataset> data, std::shared_ptr<const Tokenizer> tokenizer, const LoaderOptions& options,
               std::int64_t first_epoch, std::int64_t first_batch)
    : work_(std::make_unique<Work>()) {
  if (!(options.max_skipped >= 0.0 && options.max_skipped <= 1.0)) {
    throw UsageError("loader: " + std::to_string(options.max_skipped) + " is no share; --max-skipped; give a number from 0 to 1");
  }
  // Without a batch there is no number of batches, and without workers next() would wait for ever.
  const auto must = [](bool is_so, const std::string& what, const char* remedy) {
    if (!is_so) throw ConfigError("loader: " + what + "; LoaderOptions; " + remedy);
  };
  must(data != nullptr && tokenizer != nullptr, "no dataset or no tokenizer", "give both");
  must(options.batch_size >= 1, "batch_size is " + std::to_string(options.batch_size), "give at least 1");
  must(options.image_size >= 1, "image_size is " + std::to_string(options.image_size), "give at least 1");
  must(options.workers >= 1, "workers is " + std::to_string(options.workers), "give at least 1: batches are made by threads of their own");
  must(options.shuffle_buffer >= 0, "shuffle_buffer is " + std::to_string(options.shuffle_buffer), "give samples, or 0 for whole epochs");
  must(options.rank >= 0 && options.rank < options.world, "rank " + std::to_string(options.rank) + " of " + std::to_string(options.world),
       "give a rank from 0 to below world");
  must(first_epoch >= 0 && first_batch >= 0,
       "it begins in epoch " + std::to_string(first_epoch) + " with batch " + std::to_string(first_batch), "count both from 0");
  work_->data = std::move(data);
  work_->tokenizer = std::move(tokenizer);
  work_->options = options;
  // (Read-ahead of blocks counts on every picture being asked for; what was decoded for the crop of one epoch may be too small for
  // another.)
  const bool keeps = options.shuffle_buffer == 0 && !options.fast_decode;
  work_->decoded = std::make_unique<PictureCache>(keeps ? options.decoded_cache : 0, work_->data->size());
  work_->claim = work_->wanted = work_->announced = {first_epoch, first_batch};
  work_->announced.second *= work_->global_batch();
  work_->reported = work_->data->skipped();
  work_->skipped_before = {options.skipped_before.begin(), options.skipped_before.end()};
  for (const SkippedSample& sample : work_->reported) work_->skipped_before.erase(one_line(sample.key));
  if (first_batch >= work_->batches(first_epoch))
    work_->claim = work_->wanted = work_->announced = work_->first_from(first_epoch + (first_batch > 0 ? 1 : 0));
  work_->start(std::max(1, options.workers));
}

Loader::~Loader() = default;

std::int64_t Loader::batches_per_epoch() const {
  const std::lock_guard lock(work_->mutex);
  return work_->batches(work_->wanted.first);
}

LoadedBatch Loader::next() {
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock lock(work_->mutex);
  work_->ready.wait(lock, [&] { return work_->done.count(work_->wanted) > 0; });
  const auto found = work_->done.find(work_->wanted);
  for (const SkippedSample& sample : found->second.bad) {
    if (!work_->reported_keys.insert(sample.key).second) continue;
    work_->reported.push_back(sample);
    work_->skipped_before.erase(one_line(sample.key));
  }
  work_->check_skipped();
  // (A batch that failed stays, so that asking again fails again.)
  if (found->second.error != nullptr) std::rethrow_exception(found->second.error);
  LoadedBatch batch = std::move(found->second.batch);
  work_->done.erase(found);
  batch.batches = work_->batches(batch.epoch);
  work_->advance(work_->wanted);
  batch.last = work_->wanted.second == 0;
  --work_->ahead;
  lock.unlock();
  work_->room.notify_all();
  batch.wait_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return batch;
}

const std::vector<SkippedSample>& Loader::skipped() const { return work_->reported; }

}  // namespace twinlens
