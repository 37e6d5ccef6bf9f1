#include "clip/src/run_report.h"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>

#include "twinlens/clip/image.h"
#include "twinlens/clip/report.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

std::string percent(double share) { return fmt::format("{:.1f} %", 100.0 * share); }

// (The pictures were decoded before: they are within --max-image-pixels.)
Image thumbnail(const Dataset& data, std::int64_t sample, const ModelConfig& config) {
  EvalTransform transform = eval_transform_of(config);
  transform.size = std::min<std::int64_t>(transform.size, 64);
  return apply(transform, decode_image(data.image_bytes(sample), data.key(sample), {0}));
}

// `count` indices spread evenly over [0, n).
std::vector<std::int64_t> spread(std::int64_t n, std::int64_t count) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < std::min(n, count); ++i) out.push_back(i * n / std::min(n, count));
  return out;
}

// Whether caption `text` is one of picture `picture`.
bool is_of(const EmbeddedDataset& e, std::int64_t picture, std::int64_t text) {
  const std::vector<std::int64_t>& own = e.texts_of[static_cast<std::size_t>(picture)];
  return std::find(own.begin(), own.end(), text) != own.end();
}

void add_validation(Report& report, const Clip& model, const Dataset& data, const EmbeddedDataset& e) {
  const Retrieval r = retrieval_metrics(e.images, e.texts, e.texts_of);
  report.tables.push_back(
      {"Retrieval on the validation data",
       fmt::format("{} pictures, {} distinct captions; chance R@1 {}.", r.images, r.texts, percent(1.0 / static_cast<double>(r.texts))),
       {"", "R@1", "R@5", "R@10", "median rank"},
       {{"image to text", percent(r.image_to_text.r1), percent(r.image_to_text.r5), percent(r.image_to_text.r10),
         fmt::format("{:.0f}", r.image_to_text.median_rank)},
        {"text to image", percent(r.text_to_image.r1), percent(r.text_to_image.r5), percent(r.text_to_image.r10),
         fmt::format("{:.0f}", r.text_to_image.median_rank)}}});
  const auto m = static_cast<std::int64_t>(e.captions.size());
  for (const std::int64_t c : spread(m, 14)) {
    ReportQuery query{e.captions[static_cast<std::size_t>(c)], {}};
    const auto found = nearest(e.texts.slice(0, c, c + 1), e.images, 8).front();
    for (const std::int64_t i : found) {
      const auto at = static_cast<std::size_t>(i);
      query.pictures.push_back(
          {thumbnail(data, e.samples[at], model.config), e.captions[static_cast<std::size_t>(e.caption_of[at])], is_of(e, i, c)});
    }
    report.queries.push_back(std::move(query));
  }
  const auto best = nearest(e.images, e.texts, 1);
  std::vector<std::int64_t> wrong;
  for (std::size_t i = 0; i < best.size(); ++i) {
    if (!is_of(e, static_cast<std::int64_t>(i), best[i].front())) wrong.push_back(static_cast<std::int64_t>(i));
  }
  for (const std::int64_t k : spread(static_cast<std::int64_t>(wrong.size()), 24)) {
    const auto i = static_cast<std::size_t>(wrong[static_cast<std::size_t>(k)]);
    report.mistakes.push_back({thumbnail(data, e.samples[i], model.config), e.captions[static_cast<std::size_t>(e.caption_of[i])],
                               e.captions[static_cast<std::size_t>(best[i].front())]});
  }
}

}  // namespace

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return text;
}

void write_skipped(const std::filesystem::path& file, const std::vector<SkippedSample>& skipped) {
  if (skipped.empty()) return;
  std::string text;
  for (const SkippedSample& s : skipped) {
    text += one_line(s.key) + "\t" + one_line(s.reason) + "\n";
  }
  atomic_write(file.string(), text);
}

std::vector<SkippedSample> read_skipped(const std::filesystem::path& file) {
  std::vector<SkippedSample> out;
  std::ifstream lines(file);
  std::string line;
  while (std::getline(lines, line)) {
    const auto tab = line.find('\t');
    if (tab != std::string::npos) out.push_back({line.substr(0, tab), line.substr(tab + 1)});
  }
  return out;
}

void write_run_report(const std::filesystem::path& folder, const TrainOptions& options, const Clip& model, const Tokenizer& tokenizer,
                      const Dataset* validation, const EmbedOptions& embed, const TrainState& state, const ReportTable& data) {
  Report report;
  report.title = "twinlens: " + options.name;
  report.summary = fmt::format("{} steps, {} pairs seen, {} epochs done; logit scale {:.2f}.", state.step, state.samples, state.epoch,
                               model.logit_scale_value());
  report.settings = describe(options);
  if (validation != nullptr) {
    add_validation(report, model, *validation, embed_dataset(model, tokenizer, *validation, embed));
  }
  report.tables.push_back(data);
  write_report(folder / "report.html", report, folder / "metrics.jsonl");
}

}  // namespace twinlens
