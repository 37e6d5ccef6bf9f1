#pragma once
// What the dataset forms share. IndexedDataset holds captions in memory: for folders.

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "twinlens/clip/dataset.h"

namespace twinlens {

class IndexedDataset : public Dataset {
 public:
  std::int64_t size() const override { return static_cast<std::int64_t>(captions_.size()); }
  std::string caption(std::int64_t i) const override { return *captions_.at(static_cast<std::size_t>(i)); }
  std::int64_t caption_id(std::int64_t i) const override;
  const std::vector<SkippedSample>& skipped() const override { return skipped_; }
  std::string fingerprint() const override;

 protected:
  // Adds a sample with this caption; false (and noted as skipped) when the caption is empty or not UTF-8.
  bool add_sample(const std::string& key, const std::string& caption);
  void skip(SkippedSample sample) { skipped_.push_back(std::move(sample)); }
  // Mixes a fact about the source (its size) into the fingerprint.
  void note_source(const std::string& fact);

 private:
  std::unordered_set<std::string> distinct_;
  std::vector<const std::string*> captions_;  // into distinct_
  std::vector<SkippedSample> skipped_;
  std::uint64_t hash_ = 0;
};

std::string trimmed(const std::string& text);

// A part of a spec between `::`.
struct SpecPart {
  std::vector<std::string> paths;
  double weight = 1.0;
};
std::shared_ptr<const Dataset> open_tars(const std::vector<SpecPart>& parts, const DatasetOptions& options);
std::shared_ptr<const Dataset> open_table(const std::string& path, const DatasetOptions& options);
std::shared_ptr<const Dataset> open_folder(const std::string& path, const DatasetOptions& options);
// `::`, braces and patterns written out. Throws ConfigError for what is no range and for weights that do not fit the parts, FileError for
// a pattern that no file fits.
std::vector<SpecPart> parts_of(const std::string& spec, const std::vector<double>& weights);

}  // namespace twinlens
