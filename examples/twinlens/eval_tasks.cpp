#include "examples/twinlens/eval_tasks.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "twinlens/clip/knn.h"
#include "twinlens/clip/linear_probe.h"
#include "twinlens/clip/templates.h"
#include "twinlens/clip/zero_shot.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

using Json = nlohmann::ordered_json;

Tensor rows_of(const Tensor& x, const std::vector<std::int64_t>& rows) {
  return index_select(x, 0, from_vector(rows, {static_cast<std::int64_t>(rows.size())}));
}

// Rates over no query at all are null.
void add_part(Json& out, const std::string& suffix, const Json& values, bool any) {
  for (const auto& [name, value] : values.items()) {
    const bool is_count = name.rfind("num_", 0) == 0;
    if (name != "chance") out[name + suffix] = any || is_count ? value : Json();
  }
}

Json json_of(const Retrieval& r) {
  Json out;
  for (const auto& [name, value] : retrieval_report(r)) out[name] = value;
  out["num_images"] = r.images;  // whole numbers, as of the other tasks
  out["num_texts"] = r.texts;
  return out;
}

// The line of --classes that a label counts, or -1 where there is no class.
std::int64_t line_of(const EvalFlags& flags, const std::string& label) {
  std::int64_t line = -1;
  const char* const end = label.data() + label.size();
  const auto [behind, error] = std::from_chars(label.data(), end, line);
  const bool is_line = error == std::errc() && behind == end && line >= 0 && line < static_cast<std::int64_t>(flags.listed.of_line.size());
  return is_line && flags.listed.of_line[static_cast<std::size_t>(line)] >= 0 ? line : -1;
}

// The label of every row, as an index of `names`; those are the classes of --classes, or else all labels in order. Labels are names, or all
// of them count the lines of --classes.
std::vector<std::int64_t> labels_of(const EvalFlags& flags, const EvalData& d, std::vector<std::string>& names) {
  const std::vector<std::string>& labels = d.labels;
  if (names.empty()) names = flags.listed.names;
  if (names.empty()) {
    names = labels;
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
  }
  std::map<std::string, std::int64_t> index;
  for (std::size_t i = 0; i < names.size(); ++i) index.emplace(names[i], static_cast<std::int64_t>(i));
  const auto is_name = [&](const std::string& label) { return index.count(label) > 0; };
  const auto other = std::find_if_not(labels.begin(), labels.end(), is_name);
  const bool counts = std::all_of(labels.begin(), labels.end(), [&](const std::string& label) { return line_of(flags, label) >= 0; });
  if (other != labels.end() && !counts) {
    const auto neither =
        std::find_if(labels.begin(), labels.end(), [&](const std::string& label) { return !is_name(label) && line_of(flags, label) < 0; });
    throw ConfigError("label '" + *(neither != labels.end() ? neither : other) + "' is not among the classes; " +
                      (flags.classes.empty() ? "--train-data; add pictures of it"
                                             : flags.classes + "; add it, or let every label count the file's lines, from 0"));
  }
  std::vector<std::int64_t> out;
  for (const std::string& label : labels) {
    out.push_back(other == labels.end() ? index.at(label) : flags.listed.of_line[static_cast<std::size_t>(line_of(flags, label))]);
  }
  return out;
}

}  // namespace

void fail_with_one_class(const EvalFlags& flags, const std::string& name, const std::string& place, const std::string& remedy) {
  throw ConfigError(flags.task + ": at least two classes are needed, and there is one, '" + name + "'; " + place + "; " + remedy);
}

Json evaluate_retrieval(const LoadedModel& m, const EvalData& d, const std::optional<SeenWords>& seen) {
  const EmbeddedDataset& e = d.embedded;
  Json out{{"clip_val_loss", validation_loss(e, m.clip->logit_scale.value)}};
  out.update(json_of(retrieval_metrics(e.images, e.texts, e.texts_of)));
  for (const bool part : {true, false}) {
    if (!seen.has_value()) break;
    std::vector<bool> asked;
    for (const std::string& caption : e.captions) asked.push_back(seen->contains_all_of(caption) == part);
    const Retrieval r = retrieval_metrics(e.images, e.texts, e.texts_of, asked);
    add_part(out, part ? "_seen" : "_unseen", json_of(r), r.images > 0);
  }
  out["protocol"] = "texts are the distinct captions; a hit at k is any correct item among the first k";
  return out;
}

Json evaluate_zeroshot(const EvalFlags& flags, const LoadedModel& m, const EvalData& d, const std::optional<SeenWords>& seen) {
  std::vector<std::string> names;
  const std::vector<std::int64_t> labels = labels_of(flags, d, names);
  if (names.size() < 2)
    fail_with_one_class(flags, names.front(), "--data " + flags.data,
                        "add pictures of others, name all classes by --classes, or choose another --label");
  const EmbedOptions options = embed_options(flags.batch_size, flags.precision, flags.device);
  const Tensor classes = zero_shot_classifier(*m.clip, *m.tokenizer, names, load_templates(flags.templates), options);
  const auto json_of_part = [&](const std::vector<bool>& asked) -> Json {
    const Classification c = classification_metrics(d.embedded.images, classes, labels, asked);
    return {{"zeroshot_top1", c.top1},
            {"zeroshot_top5", c.top5},
            {"zeroshot_mean_per_class_recall", c.mean_per_class_recall},
            {"num_images", c.images}};
  };
  Json out = json_of_part({});
  out["num_texts"] = names.size();
  out["chance"] = 1.0 / static_cast<double>(names.size());
  for (const bool part : {true, false}) {
    if (!seen.has_value()) break;
    std::vector<bool> asked;
    std::vector<std::int64_t> captions;
    for (const std::int64_t caption : d.embedded.caption_of) {
      asked.push_back(seen->contains_all_of(d.embedded.captions[static_cast<std::size_t>(caption)]) == part);
      if (asked.back()) captions.push_back(caption);
    }
    std::sort(captions.begin(), captions.end());
    Json values = json_of_part(asked);
    values["num_texts"] = std::unique(captions.begin(), captions.end()) - captions.begin();
    add_part(out, part ? "_seen" : "_unseen", values, !captions.empty());
  }
  out["templates"] = flags.templates;
  return out;
}

namespace {

// Pictures to fit on and pictures to measure on, with labels.
struct Split {
  std::vector<std::string> names;
  std::vector<std::int64_t> train_labels, test_labels;
  Tensor train, test;
};

Split split_of(const EvalFlags& flags, const EvalData& d, const EvalData* train) {
  Split s;
  std::vector<std::int64_t> train_rows, test_rows;
  const EvalData& from = train == nullptr ? d : *train;
  const std::vector<std::int64_t> labels = labels_of(flags, from, s.names);
  if (train != nullptr) {
    s.train_labels = labels;
    s.test_labels = labels_of(flags, d, s.names);
  } else {
    std::vector<int> count(s.names.size(), 0);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const bool held_out = count[static_cast<std::size_t>(labels[i])]++ % 5 == 4;
      (held_out ? s.test_labels : s.train_labels).push_back(labels[i]);
      (held_out ? test_rows : train_rows).push_back(static_cast<std::int64_t>(i));
    }
    if (test_rows.empty()) throw ConfigError(flags.task + ": no class has five pictures to hold one out; --data; give --train-data");
  }
  const std::set<std::int64_t> fitted(s.train_labels.begin(), s.train_labels.end());
  if (fitted.size() < 2)
    fail_with_one_class(flags, s.names[static_cast<std::size_t>(*fitted.begin())],
                        train == nullptr ? "--data " + flags.data : "--train-data " + flags.train_data, "add pictures of others to fit on");
  s.train = train != nullptr ? train->embedded.images : rows_of(d.embedded.images, train_rows);
  s.test = train != nullptr ? d.embedded.images : rows_of(d.embedded.images, test_rows);
  return s;
}

// `name`_top1, ... and the counts.
void add_rates(Json& out, const std::string& name, const Split& s, const Classification& c) {
  out[name + "_top1"] = c.top1;
  out[name + "_top5"] = c.top5;
  out[name + "_mean_per_class_recall"] = c.mean_per_class_recall;
  out["num_train_images"] = s.train_labels.size();
  out["num_images"] = c.images;
  out["num_texts"] = c.classes;
  out["chance"] = 1.0 / static_cast<double>(c.classes);
}

}  // namespace

Json evaluate_linear_probe(const EvalFlags& flags, const EvalData& d, const EvalData* train) {
  const Split s = split_of(flags, d, train);
  ProbeOptions options;
  options.c = flags.probe_c;
  const LinearProbe probe = fit_linear_probe(s.train, s.train_labels, static_cast<std::int64_t>(s.names.size()), options);
  Json out;
  add_rates(out, "linear_probe", s, classification_metrics(probe.inputs(s.test), probe.classes(), s.test_labels));
  out["linear_probe_c"] = options.c;
  out["linear_probe_steps"] = probe.steps;
  out["linear_probe_converged"] = probe.converged;
  return out;
}

Json evaluate_knn(const EvalFlags& flags, const EvalData& d, const EvalData* train) {
  const Split s = split_of(flags, d, train);
  Json out;
  add_rates(out, "knn", s,
            knn_metrics(s.train, s.train_labels, s.test, s.test_labels, static_cast<std::int64_t>(s.names.size()), flags.knn_k));
  out["knn_k"] = flags.knn_k;
  return out;
}

}  // namespace twinlens::program
