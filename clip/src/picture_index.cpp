#include "twinlens/clip/picture_index.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "clip/src/json_text.h"
#include "clip/src/run_lock.h"

#include "twinlens/core/autograd.h"
#include "twinlens/core/check.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char *kFacts = "index.json", *kFeatures = "embeddings.safetensors", *kNames = "names.txt", *kProbe = "a photo";

std::string within(const std::string& folder, const char* name) { return (fs::path(folder) / name).string(); }

// What index.json says.
struct Facts {
  std::string model;
  std::int64_t count;
  std::vector<float> probe;
};

Facts facts_of(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(within(folder, kFacts), error)) {
    if (error) throw FileError("the index cannot be read: " + error.message() + "; " + folder + "; check the path and its permissions");
    throw FileError("not an index: index.json is missing; " + folder + "; make it by twinlens index");
  }
  try {
    const Json json = Json::parse(read_file(within(folder, kFacts)));
    return {json.value("model", "unknown"), json.value("count", std::int64_t{-1}), json.value("probe", std::vector<float>())};
  } catch (const Json::exception& e) {
    throw FileError("the index is damaged: " + std::string(e.what()) + "; " + within(folder, kFacts) + "; make it anew by twinlens index");
  }
}

const std::string& existing(const std::string& folder) {
  (void)facts_of(folder);
  return folder;
}

bool is_index(const std::string& folder) {
  try {
    const Facts facts = facts_of(folder);
    return facts.count >= 0 && !facts.probe.empty();
  } catch (const FileError&) {
    return false;
  }
}

// An index takes the place of an index, whole or damaged, and comes into an empty folder, not among other files.
void check_place(const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with('.') || name.starts_with(kFacts) || name.starts_with(kFeatures) || name.starts_with(kNames)) continue;
    if (is_index(folder)) return;
    throw ConfigError("the folder is no index and holds other files, such as '" + name + "'; --index, --output " + folder +
                      "; name a new or empty folder, or an index to replace");
  }
}

constexpr const char* kNew = ".new-";

// A folder for files that are not done, which goes with them. Those of a process that was killed lie about as large as an index until the
// next one is made, who has the folder to itself.
struct NewFiles {
  std::string path;
  explicit NewFiles(const std::string& folder) : path(within(folder, kNew) + std::to_string(::getpid())) {
    std::error_code error;
    std::vector<fs::path> left;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      if (it->path().filename().string().starts_with(kNew)) left.push_back(it->path());
    }
    for (const fs::path& old : left) fs::remove_all(old, error);
    make_folder(path);
  }
  ~NewFiles() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;
};

}  // namespace

IndexResult build_index(const Clip& model, const Tokenizer& tokenizer, const std::string& model_name,
                        const std::vector<std::string>& sources, const std::string& folder, const EmbedOptions& options,
                        const std::function<bool()>& stop, const std::function<void(const SkippedSample&)>& skip) {
  if (!stop || !skip) throw ConfigError("build_index: stop or skip is an empty function; its arguments; give both");
  std::error_code error;
  check_place(folder);
  const NewFolder place(folder);
  const RunLock lock(folder, "is making an index in this folder", "choose another --index");
  EmbedOptions unit = options;
  unit.normalize = true;
  IndexResult result;
  // Made beside an index that is there, whose place it takes when it is whole on the disk.
  const NewFiles made(folder);
  {
    EmbeddingWriter features(within(made.path, kFeatures), decoding_metadata(options));
    AtomicFile names(within(made.path, kNames));
    PictureStream pictures(sources);
    embed_stream(
        model, pictures, unit,
        [&](const Tensor& rows, const std::vector<std::string>& batch) {
          features.append(rows);
          std::string lines;
          for (const std::string& name : batch) lines += name + "\n";
          names.write(lines.data(), lines.size());
          result.stopped = stop();
          return !result.stopped;
        },
        [&](const SkippedSample& s) {
          ++result.skipped;
          skip(s);
        });
    result.count = features.count();
    if (result.count == 0)
      throw FileError("no usable picture; " + (sources.empty() ? std::string("no source") : sources.front()) +
                      "; name folders, tars or pictures");
    if (result.stopped && fs::exists(within(folder, kFacts), error)) {
      std::fprintf(stderr, "note: stopped after %lld pictures; the index that was there stays as it is; %s\n",
                   static_cast<long long>(result.count), folder.c_str());
      return result;
    }
    features.finish();
    names.commit();
  }
  fs::remove(within(folder, kFacts), error);  // until all is there, this is no index
  for (const char* file : {kFeatures, kNames}) {
    fs::rename(within(made.path, file), within(folder, file), error);
    if (error)
      throw FileError("the index cannot be put in its place: " + error.message() + "; " + within(folder, file) + "; check permissions");
  }
  const Json facts{{"model", model_name},
                   {"count", result.count},
                   {"embed_dim", model.config.embed_dim},
                   {"probe", embed_texts(model, tokenizer, {kProbe}).to_vector()}};
  atomic_write(within(folder, kFacts), json_text(facts) + "\n");
  return result;
}

PictureIndex::PictureIndex(const std::string& folder, const Clip& model, const Tokenizer& tokenizer)
    : folder_(existing(folder)), reader_(within(folder, kFeatures)) {
  const Facts facts = facts_of(folder);
  const std::vector<float> now = embed_texts(model, tokenizer, {kProbe}).to_vector();
  const std::vector<float>& then = facts.probe;
  double distance = then.size() == now.size() ? 0.0 : 2.0;
  for (std::size_t i = 0; i < std::min(then.size(), now.size()); ++i) {
    const double d = static_cast<double>(then[i]) - static_cast<double>(now[i]);
    distance += d * d;
  }
  if (!(std::sqrt(distance) < 0.05)) {
    throw ConfigError("the index was made by another model (" + facts.model + "); " + folder +
                      "; give that --model or make the index anew");
  }
  if (facts.count != reader_.count())
    throw FileError("the index is damaged: index.json and the embeddings differ in number; " + folder + "; make it anew by twinlens index");
}

Tensor PictureIndex::query(const Clip& model, const std::string& picture, EmbedOptions options) const {
  const std::string file = within(folder_, kFeatures);
  if (!decode_as(options, reader_.metadata(), file))
    std::fprintf(stderr, "note: '%s' does not say how its pictures were decoded; taken as decoded whole, as they lie\n", file.c_str());
  return embed_image_files(model, {picture}, options);
}

std::vector<Found> PictureIndex::search(const Tensor& query, int k, double logit_scale) const {
  constexpr std::int64_t kRows = 8192;
  check(k >= 0, "search", "k must be 0 or more; k=" + std::to_string(k));
  const NoGrad guard;
  using Scored = std::pair<double, std::int64_t>;  // minus the score, row: the best is the least
  std::vector<Scored> best;
  double top = -1e30, total = 0.0;  // log-sum-exp under way
  for (std::int64_t begin = 0; begin < count(); begin += kRows) {
    const std::int64_t end = std::min(count(), begin + kRows);
    const std::vector<float> scores = matmul(reader_.rows(begin, end), query, {.transpose_b = true}).to_vector();
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const double score = static_cast<double>(scores[i]), logit = logit_scale * score;
      total = logit > top ? total * std::exp(top - logit) + 1.0 : total + std::exp(logit - top);
      top = std::max(top, logit);
      best.emplace_back(-score, begin + static_cast<std::int64_t>(i));
    }
    std::sort(best.begin(), best.end());
    best.resize(std::min(best.size(), static_cast<std::size_t>(k)));
  }
  std::map<std::int64_t, std::size_t> wanted;
  std::vector<Found> out(best.size());
  for (std::size_t i = 0; i < best.size(); ++i) {
    wanted[best[i].second] = i;
    out[i].score = -best[i].first;
    out[i].probability = std::exp(logit_scale * out[i].score - top) / total;
  }
  std::ifstream names(within(folder_, kNames));
  std::string line;
  std::int64_t row = 0;
  for (auto it = wanted.begin(); it != wanted.end(); ++row) {
    if (!std::getline(names, line)) throw FileError("the index is damaged: too few names; " + within(folder_, kNames) + "; make it anew");
    if (row == it->first) out[(it++)->second].image = line;
  }
  return out;
}

}  // namespace twinlens
