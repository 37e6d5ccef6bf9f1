#include <algorithm>
#include <cstdio>
#include <fmt/format.h>

#include "examples/twinlens/command.h"
#include "examples/twinlens/load.h"

#include "twinlens/clip/templates.h"
#include "twinlens/clip/zero_shot.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string model, data, task = "retrieval", dataset_type = "auto", classes, templates = "photo", label = "class";
  std::string csv_separator, csv_img_key, csv_caption_key, device = "cpu", precision = "fp32", where;
  int batch_size = 64;
  bool json = false;
};

// "field=value": only samples whose metadata says so. Rows of the embedded data that stay.
std::vector<std::int64_t> chosen(const Flags& flags, const Dataset& data, const EmbeddedDataset& e) {
  std::vector<std::int64_t> rows;
  const auto equals = flags.where.find('=');
  if (!flags.where.empty() && equals == std::string::npos)
    throw ConfigError("--where '" + flags.where + "'; command line; write FIELD=VALUE");
  for (std::size_t i = 0; i < e.samples.size(); ++i) {
    if (flags.where.empty() || data.field(e.samples[i], flags.where.substr(0, equals)) == flags.where.substr(equals + 1)) {
      rows.push_back(static_cast<std::int64_t>(i));
    }
  }
  if (rows.empty()) throw ConfigError("no sample has " + flags.where + "; --where; check the metadata fields of the data");
  return rows;
}

Tensor rows_of(const Tensor& x, const std::vector<std::int64_t>& rows) {
  return index_select(x, 0, from_vector(rows, {static_cast<std::int64_t>(rows.size())}));
}

Json retrieval(const EmbeddedDataset& e, const std::vector<std::int64_t>& rows) {
  std::vector<std::int64_t> texts, caption_of;
  for (const std::int64_t r : rows) texts.push_back(e.caption_of[static_cast<std::size_t>(r)]);
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  for (const std::int64_t r : rows) {
    caption_of.push_back(std::lower_bound(texts.begin(), texts.end(), e.caption_of[static_cast<std::size_t>(r)]) - texts.begin());
  }
  Json out;
  for (const auto& [name, value] : retrieval_report(retrieval_metrics(rows_of(e.images, rows), rows_of(e.texts, texts), caption_of)))
    out[name] = value;
  return out;
}

Json zeroshot(const Flags& flags, const LoadedModel& m, const Dataset& data, const EmbeddedDataset& e,
              const std::vector<std::int64_t>& rows) {
  std::vector<std::string> labels, names;
  for (const std::int64_t r : rows) {
    labels.push_back(data.field(e.samples[static_cast<std::size_t>(r)], flags.label));
    if (labels.back().empty())
      throw ConfigError("sample " + data.key(e.samples[static_cast<std::size_t>(r)]) + " has no label '" + flags.label +
                        "'; --label; name a metadata field");
  }
  if (!flags.classes.empty()) {
    names = read_lines(flags.classes);
  } else {
    names = labels;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
  }
  std::vector<std::int64_t> label_of;
  for (const std::string& label : labels) {
    const auto it = std::find(names.begin(), names.end(), label);
    if (it == names.end()) throw ConfigError("label '" + label + "' is not among the classes; " + flags.classes + "; add it");
    label_of.push_back(it - names.begin());
  }
  const EmbedOptions options = embed_options(flags.batch_size, flags.precision);
  const Tensor classes = zero_shot_classifier(*m.clip, *m.tokenizer, names, load_templates(flags.templates), options);
  const Classification c = classification_metrics(rows_of(e.images, rows), classes, label_of);
  return {{"zeroshot_top1", c.top1}, {"zeroshot_top5", c.top5}, {"zeroshot_mean_per_class_recall", c.mean_per_class_recall},
          {"num_images", c.images},  {"num_texts", c.classes},  {"chance", 1.0 / static_cast<double>(c.classes)}};
}

int eval(const Flags& flags) {
  const LoadedModel m = load(flags.model, flags.device);
  DatasetOptions data_options;
  data_options.type = flags.dataset_type;
  data_options.csv_separator = flags.csv_separator;
  data_options.csv_img_key = flags.csv_img_key;
  data_options.csv_caption_key = flags.csv_caption_key;
  const auto data = open_dataset(flags.data, data_options);
  const EmbeddedDataset e = embed_dataset(*m.clip, *m.tokenizer, *data, embed_options(flags.batch_size, flags.precision));
  for (const SkippedSample& s : e.skipped) std::fprintf(stderr, "skipped %s: %s\n", s.key.c_str(), s.reason.c_str());
  const std::vector<std::int64_t> rows = chosen(flags, *data, e);
  Json out = flags.task == "retrieval" ? retrieval(e, rows) : zeroshot(flags, m, *data, e, rows);
  out["skipped"] = e.skipped.size();
  if (flags.json) {
    std::printf("%s\n", out.dump().c_str());
    return 0;
  }
  for (const auto& [name, value] : out.items()) {
    if (value.is_number_float()) {
      fmt::print("{:<32} {:.4f}\n", name, value.get<double>());
    } else {
      fmt::print("{:<32} {}\n", name, value.dump());
    }
  }
  return 0;
}

}  // namespace

Action add_eval(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  app.add_option("--model", flags->model, "Model folder")->required();
  app.add_option("--data", flags->data, "Shards, CSV/TSV or folder, as for train")->required();
  app.add_option("--task", flags->task, "retrieval or zeroshot")->capture_default_str()->check(CLI::IsMember({"retrieval", "zeroshot"}));
  app.add_option("--dataset-type", flags->dataset_type, "auto, webdataset, csv or folder")->capture_default_str();
  app.add_option("--csv-separator", flags->csv_separator, "Sniffed when not given");
  app.add_option("--csv-img-key", flags->csv_img_key, "Column of image paths");
  app.add_option("--csv-caption-key", flags->csv_caption_key, "Column of captions");
  app.add_option("--classes", flags->classes, "zeroshot: file with one class a line; default: the labels of the data");
  app.add_option("--label", flags->label, "zeroshot: metadata field that holds the label")->capture_default_str();
  app.add_option("--templates", flags->templates, "openai, simple, photo, none, or a file")->capture_default_str();
  app.add_option("--where", flags->where, "Only samples whose metadata has FIELD=VALUE");
  app.add_option("--batch-size", flags->batch_size)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--precision", flags->precision, "fp32 or amp_bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "amp_bf16", "bf16"}));
  app.add_option("--device", flags->device, "cpu or cuda[:i]")->capture_default_str();
  app.add_flag("--json", flags->json, "One flat JSON object");
  app.footer(
      "Examples:\n  twinlens eval --model logs/quickstart/model --data 'shards/{000..003}.tar'\n"
      "  twinlens eval --model logs/quickstart/model --data pictures/ --task zeroshot --templates openai");
  return [flags] { return eval(*flags); };
}

}  // namespace twinlens::program
