#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fmt/ranges.h>
#include <map>
#include <set>
#include <utility>

#include "examples/twinlens/command.h"
#include "examples/twinlens/eval_tasks.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

using Json = nlohmann::ordered_json;

// The samples that each --where ("field=value": those whose metadata says so) leaves, in ascending order, with their labels (for retrieval
// empty). What is wrong with either flag shows here, before anything is embedded.
std::map<std::int64_t, std::string> chosen(const EvalFlags& flags, const Dataset& data) {
  const std::set<std::string> listed(flags.listed.names.begin(), flags.listed.names.end());
  std::vector<std::pair<std::string, std::string>> wanted;
  for (const std::string& where : flags.where) {
    const auto equals = where.find('=');
    if (equals == std::string::npos) throw UsageError("--where '" + where + "'; command line; write FIELD=VALUE");
    wanted.emplace_back(where.substr(0, equals), where.substr(equals + 1));
  }
  std::map<std::int64_t, std::string> out;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    if (!std::all_of(wanted.begin(), wanted.end(), [&](const auto& w) { return data.field(i, w.first) == w.second; })) continue;
    std::string& label = out[i];
    if (flags.task == "retrieval") continue;
    label = data.field(i, flags.label);
    if (label.empty())
      throw ConfigError("sample " + data.key(i) + " has no label '" + flags.label + "'; --label; name a metadata field" +
                        (flags.text_key == "txt" ? "" : ", or the --text-key: " + flags.text_key));
    // As in the captions that training makes of them, unless --classes has a folder's name as it is.
    if (data.has_classes() && listed.count(label) == 0) std::replace(label.begin(), label.end(), '_', ' ');
  }
  if (out.empty())
    throw ConfigError(fmt::format("no sample has {}; --where; check the metadata fields of the data", fmt::join(flags.where, " and ")));
  return out;
}

DatasetOptions data_options(const EvalFlags& flags) {
  DatasetOptions options;
  options.type = flags.dataset_type;
  options.csv_separator = flags.csv_separator;
  options.csv_img_key = flags.csv_img_key;
  options.csv_caption_key = flags.csv_caption_key;
  options.image_key = flags.image_key;
  options.text_key = flags.text_key;
  options.json_text_key = flags.json_text_key;
  options.captions = "all";  // several captions of one picture are right answers, all of them
  return options;
}

EvalData embedded(const EvalFlags& flags, const LoadedModel& m, const std::string& spec) {
  EvalData d;
  DatasetOptions data = data_options(flags);
  if (flags.task != "retrieval") data.captions = "first";  // what has a label is the sample
  d.data = open_dataset(spec, data);
  const std::map<std::int64_t, std::string> labels = chosen(flags, *d.data);
  std::vector<std::int64_t> samples;
  for (const auto& [sample, label] : labels) samples.push_back(sample);
  EmbedOptions options = embed_options(flags.batch_size, flags.precision, flags.device);
  flags.pictures.apply_to(options);
  options.normalize = flags.task != "linear-probe";
  options.each_sample = flags.task != "retrieval";  // equal pictures may have different labels
  d.embedded = embed_dataset(*m.clip, *m.tokenizer, *d.data, samples, options);
  for (const SkippedSample& s : d.embedded.skipped) std::fprintf(stderr, "skipped %s: %s\n", s.key.c_str(), s.reason.c_str());
  for (const std::int64_t sample : d.embedded.samples) d.labels.push_back(labels.at(sample));
  return d;
}

// --seen-words: the captions of a dataset, or the lines of a text file or a pipe.
std::optional<SeenWords> seen_words(const EvalFlags& flags) {
  if (flags.seen_words.empty()) return {};
  SeenWords words;
  const std::string ending = std::filesystem::path(flags.seen_words).extension().string();
  std::error_code ignored;
  if (ending == ".txt" || std::filesystem::is_fifo(flags.seen_words, ignored)) {
    for (const std::string& line : read_lines(flags.seen_words)) words.add(line);
  } else {
    const auto data = open_dataset(flags.seen_words, data_options(flags));
    for (std::int64_t i = 0; i < data->size(); ++i) words.add(data->caption(i));
  }
  return words;
}

Json results(EvalFlags flags) {
  if (!flags.classes.empty() && flags.task != "retrieval") {
    flags.listed = read_classes(flags.classes);
    if (flags.listed.names.size() < 2)
      fail_with_one_class(flags, flags.listed.names.front(), "--classes " + flags.classes, "add the others");
  }
  const LoadedModel m = load(flags.model, flags.device, flags.precision);
  const std::optional<SeenWords> seen = seen_words(flags);
  const EvalData d = embedded(flags, m, flags.data);
  Json out;
  if (flags.task == "retrieval") {
    out = evaluate_retrieval(m, d, seen);
  } else if (flags.task == "zeroshot") {
    out = evaluate_zeroshot(flags, m, d, seen);
  } else {
    std::optional<EvalData> train;
    if (!flags.train_data.empty()) train = embedded(flags, m, flags.train_data);
    const auto evaluate = flags.task == "knn" ? evaluate_knn : evaluate_linear_probe;
    out = evaluate(flags, d, train.has_value() ? &*train : nullptr);
  }
  out["skipped"] = d.embedded.skipped.size();
  return out;
}

// Flags that the task does not read are said to be: one may have meant another task.
void note_unused_flags(const CLI::App& app, const std::string& task) {
  using Tasks = std::set<std::string>;
  static const std::map<std::string, Tasks> readers{{"--classes", {"zeroshot", "linear-probe", "knn"}},
                                                    {"--label", {"zeroshot", "linear-probe", "knn"}},
                                                    {"--templates", {"zeroshot"}},
                                                    {"--seen-words", {"retrieval", "zeroshot"}},
                                                    {"--train-data", {"linear-probe", "knn"}},
                                                    {"--probe-c", {"linear-probe"}},
                                                    {"--knn-k", {"knn"}}};
  for (const auto& [flag, tasks] : readers) {
    if (app.count(flag) > 0 && tasks.count(task) == 0)
      std::fprintf(stderr, "note: %s is not used by --task %s\n", flag.c_str(), task.c_str());
  }
}

int eval(const EvalFlags& flags) {
  const Json out = results(flags);
  if (flags.json) {
    print_json(out);
    return 0;
  }
  for (const auto& [name, value] : out.items()) {
    if (value.is_number_float()) {
      print("{:<32} {:.4f}\n", name, value.get<double>());
    } else {
      print("{:<32} {}\n", name, json_text(value));
    }
  }
  return 0;
}

}  // namespace

Action add_eval(CLI::App& app) {
  auto flags = std::make_shared<EvalFlags>();
  app.add_option("--model", flags->model, "Model folder, or a file with weights")->required();
  app.add_option("--data", flags->data, "Shards, CSV/TSV or folder, as for train")->required();
  app.add_option("--task", flags->task, "retrieval, zeroshot, linear-probe or knn")
      ->capture_default_str()
      ->check(CLI::IsMember({"retrieval", "zeroshot", "linear-probe", "knn"}));
  app.add_option("--dataset-type", flags->dataset_type, "auto, webdataset, csv or folder")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "webdataset", "csv", "folder"}));
  app.add_option("--csv-separator", flags->csv_separator, "Sniffed when not given");
  app.add_option("--csv-img-key", flags->csv_img_key, "Column of image paths");
  app.add_option("--csv-caption-key", flags->csv_caption_key, "Column of captions");
  app.add_option("--image-key", flags->image_key, "Shards: extensions of pictures, best first; jpg or jpeg also takes jpe and jfif")
      ->capture_default_str();
  app.add_option("--text-key", flags->text_key, "Shards: extensions of captions, best first; cls where they hold labels instead")
      ->capture_default_str();
  app.add_option("--json-text-key", flags->json_text_key,
                 "Shards: captions from these fields of the .json member instead, as for train; all captions of a picture are right");
  app.add_option("--classes", flags->classes,
                 "zeroshot, linear-probe, knn: file with one class a line, two at least; default: the labels of the data, of class "
                 "folders their names with spaces for _");
  app.add_option("--label", flags->label,
                 "zeroshot, linear-probe, knn: metadata field, or the --text-key, that holds the label: a class or the number of its line "
                 "in --classes, from 0")
      ->capture_default_str();
  app.add_option("--templates", flags->templates, "openai, simple, photo, none, or a file")->capture_default_str();
  app.add_option("--seen-words", flags->seen_words,
                 "retrieval, zeroshot: the training data (as --data) or a .txt of its captions; results are also given apart, with _seen "
                 "for queries whose caption has no other words and _unseen for the rest");
  app.add_option("--train-data", flags->train_data,
                 "linear-probe, knn: pictures to fit on; default: four of five pictures of each class of --data, the fifth is measured");
  app.add_option("--probe-c", flags->probe_c, "linear-probe: inverse strength of the regularisation, as scikit-learn's C")
      ->capture_default_str()
      ->check(above(0));
  app.add_option("--knn-k", flags->knn_k, "knn: how many neighbours vote")->capture_default_str()->check(at_least(1));
  flags->pictures.add_to(app);
  app.add_option("--where", flags->where, "Only samples whose metadata has FIELD=VALUE; several: all of them");
  app.add_option("--batch-size", flags->batch_size, "Pictures or texts encoded at once")->capture_default_str()->check(at_least(1));
  add_precision(app, flags->precision);
  add_device(app, flags->device);
  app.add_flag("--json", flags->json, "One flat JSON object");
  app.footer(
      "Examples:\n  twinlens eval --model logs/quickstart/model --data 'shards/{000..003}.tar'\n"
      "  twinlens eval --model logs/quickstart/model --data pictures/ --task zeroshot --templates openai\n"
      "  twinlens eval --model logs/quickstart/model --data 'test/{0..3}.tar' --task zeroshot --text-key cls --label cls "
      "--classes classnames.txt");
  return [flags, &app] {
    note_unused_flags(app, flags->task);
    return eval(*flags);
  };
}

}  // namespace twinlens::program
