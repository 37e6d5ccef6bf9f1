// bin/loader_bench: is it decoding that limits the loader, or its queue? The same pictures go through a plain loop on one thread and
// through the loader, turn about; the best round of each counts. Beside the rates stand microseconds a picture on the processor, all
// threads together: what the queue adds to decoding, whoever else uses the machine.

#include "twinlens/clip/loader.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/image.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

struct Flags {
  std::string data = std::string(TWINLENS_SOURCE_DIR) + "/examples/data/emoji/twitter-val-000.tar.gz";
  LoaderOptions loader;
  std::int64_t batches = 16;
  int rounds = 5;
  bool json = false;
  std::string picture;
  bool fast_decode = false;
};

template <class F>
double seconds(const F& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Rates {
  double loop = 0.0, loader = 0.0, read_share = 0.0;
  double loop_cpu = 1e30, loader_cpu = 1e30;  // seconds a picture
};

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Rates measure(const Flags& flags) {
  const auto data = open_dataset(flags.data);
  const auto tokenizer = clip_tokenizer();
  const LoaderOptions& o = flags.loader;
  const std::int64_t pairs = flags.batches * o.batch_size;
  Rates best;
  for (int round = 0; round < flags.rounds; ++round) {
    const double loop_start = cpu_seconds();
    const double loop = seconds([&] {
      for (std::int64_t k = 0; k < pairs; ++k) {
        const std::int64_t i = k % data->size();
        const Image image = decode_image(data->image_bytes(i), data->key(i), {o.max_image_pixels});
        augment(image, o.image_size, o.augment, o.seed, 0, i);
        tokenizer->tokenize(data->caption(i), o.context_length);
      }
    });
    best.loop_cpu = std::min(best.loop_cpu, (cpu_seconds() - loop_start) / static_cast<double>(pairs));
    best.loop = std::max(best.loop, static_cast<double>(pairs) / loop);
    const double loader_start = cpu_seconds();
    std::optional<Loader> loader(std::in_place, data, tokenizer, o);
    loader->next();  // from here on no batch is ready before it is waited for
    double read = 0.0, all = 0.0;
    const double queue = seconds([&] {
      for (std::int64_t b = 0; b < flags.batches; ++b) {
        const LoadedBatch batch = loader->next();
        read += batch.read_seconds;
        all += batch.read_seconds + batch.decode_seconds;
      }
    });
    // (Batches that were begun are finished when the loader ends; of up to two more nothing is known.)
    loader.reset();
    const double made = static_cast<double>(flags.batches + 1 + o.workers) * static_cast<double>(o.batch_size);
    best.loader_cpu = std::min(best.loader_cpu, (cpu_seconds() - loader_start) / made);
    const double rate = static_cast<double>(pairs) / queue;
    if (rate > best.loader) best.read_share = all > 0.0 ? read / all : 0.0;
    best.loader = std::max(best.loader, rate);
  }
  return best;
}

// One picture, again and again, on one thread: file in memory -> decoded, resized, cropped and normalised floats. Rounds in turns with
// another program: a number of times on each line of stdin, answered by a line of JSON.
void serve_picture(const std::string& path, std::int64_t size, bool fast_decode) {
  const std::string bytes = read_file(path);
  EvalTransform transform;
  transform.size = size;
  EmbedOptions options;
  options.fast_decode = fast_decode;
  const DecodeOptions decode = decode_options(options, transform);
  std::printf("{\"ready\": true}\n");
  std::fflush(stdout);
  for (int times = 0; std::cin >> times;) {
    std::vector<float> values;
    const double cpu_start = cpu_seconds();
    const double wall = seconds([&] {
      for (int i = 0; i < times; ++i) values = to_chw_float(apply(transform, decode_image(bytes, path, decode)), kClipMean, kClipStd);
    });
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    std::cout << nlohmann::json{{"seconds", wall / times},
                                {"cpu_seconds", (cpu_seconds() - cpu_start) / times},
                                {"mean", sum / static_cast<double>(values.size())}}
                     .dump()
              << std::endl;
  }
}

int run(int argc, char** argv) {
  Flags flags;
  flags.loader.workers = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  CLI::App app{"Pictures a second through the loader, beside a plain loop that decodes the same"};
  app.add_option("--data", flags.data, "As --train-data; the built-in pictures when not given")->capture_default_str();
  app.add_option("--workers", flags.loader.workers)->capture_default_str();
  app.add_option("--batch-size", flags.loader.batch_size)->capture_default_str();
  app.add_option("--image-size", flags.loader.image_size)->capture_default_str();
  app.add_option("--batches", flags.batches, "Batches a round")->capture_default_str();
  app.add_option("--rounds", flags.rounds)->capture_default_str();
  app.add_flag("--json", flags.json);
  app.add_option("--picture", flags.picture,
                 "Instead: a file through decoding and the evaluation transform, so often as lines of stdin say");
  app.add_flag("--fast-decode", flags.fast_decode, "With --picture: as embed --fast-decode");
  CLI11_PARSE(app, argc, argv);
  if (!flags.picture.empty()) {
    serve_picture(flags.picture, flags.loader.image_size, flags.fast_decode);
    return 0;
  }
  const Rates r = measure(flags);
  const double cores = std::min<double>(flags.loader.workers, std::max(1U, std::thread::hardware_concurrency()));
  if (flags.json) {
    std::printf("%s\n", nlohmann::ordered_json{{"loop_pictures_per_second", r.loop},
                                               {"loader_pictures_per_second", r.loader},
                                               {"workers", flags.loader.workers},
                                               {"share_of_workers_times_loop", r.loader / (r.loop * cores)},
                                               {"read_share", r.read_share},
                                               {"loop_cpu_microseconds_per_picture", 1e6 * r.loop_cpu},
                                               {"loader_cpu_microseconds_per_picture", 1e6 * r.loader_cpu}}
                            .dump()
                            .c_str());
  } else {
    std::printf(
        "plain loop, one thread: %.0f pictures/s\nloader, %d workers: %.0f pictures/s, %.0f %% of %.0f such loops; reading takes %.1f %%\n"
        "on the processor: %.1f us a picture in the loop, %.1f in the loader\n",
        r.loop, flags.loader.workers, r.loader, 100 * r.loader / (r.loop * cores), cores, 100 * r.read_share, 1e6 * r.loop_cpu,
        1e6 * r.loader_cpu);
  }
  return 0;
}

}  // namespace
}  // namespace twinlens

int main(int argc, char** argv) {
  try {
    return twinlens::run(argc, argv);
  } catch (const twinlens::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}
