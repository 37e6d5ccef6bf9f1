#pragma once
// The tasks of `twinlens eval`: embedded data to one flat JSON object.

#include <optional>

#include "examples/twinlens/load.h"

#include "twinlens/clip/seen_words.h"

namespace twinlens::program {

struct EvalFlags {
  std::string model, data, train_data, task = "retrieval", dataset_type = "auto", classes, templates = "photo", label = "class";
  std::string csv_separator, csv_img_key, csv_caption_key, device = "cpu", precision = "fp32", seen_words;
  std::vector<std::string> where;
  int batch_size = 64;
  double probe_c = 0.316;
  int knn_k = 20;
  PictureFlags pictures;
  bool json = false;
  std::string text_key = "txt", image_key = "jpg;png;jpeg;webp", json_text_key = {};
  ClassNames listed = {};  // those of --classes
};

// Those samples of a dataset that each --where leaves, embedded, with their labels (empty for retrieval).
struct EvalData {
  std::shared_ptr<const Dataset> data;
  EmbeddedDataset embedded;
  std::vector<std::string> labels;
};

// With one class, every answer would be right.
[[noreturn]] void fail_with_one_class(const EvalFlags& flags, const std::string& name, const std::string& place, const std::string& remedy);

nlohmann::ordered_json evaluate_retrieval(const LoadedModel& m, const EvalData& d, const std::optional<SeenWords>& seen);
nlohmann::ordered_json evaluate_zeroshot(const EvalFlags& flags, const LoadedModel& m, const EvalData& d,
                                         const std::optional<SeenWords>& seen);
// Fitted on `train`; when that is absent, on four of five pictures of each class of `d` and measured on the fifth. The probe's features are
// not normalised, as in OpenAI's README.
nlohmann::ordered_json evaluate_linear_probe(const EvalFlags& flags, const EvalData& d, const EvalData* train);
// The same split for k nearest neighbours by cosine.
nlohmann::ordered_json evaluate_knn(const EvalFlags& flags, const EvalData& d, const EvalData* train);

}  // namespace twinlens::program
