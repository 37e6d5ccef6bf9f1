#pragma once
// What the dataset forms share: captions with ids, keys, fields, skipped samples.

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "twinlens/clip/dataset.h"

namespace twinlens {

class IndexedDataset : public Dataset {
 public:
  std::int64_t size() const override { return static_cast<std::int64_t>(caption_ids_.size()); }
  std::string caption(std::int64_t i) const override { return captions_[static_cast<std::size_t>(caption_id(i))]; }
  std::int64_t caption_id(std::int64_t i) const override { return caption_ids_.at(static_cast<std::size_t>(i)); }
  const std::vector<SkippedSample>& skipped() const override { return skipped_; }
  std::string fingerprint() const override;

 protected:
  // Adds a sample with this caption; false (and noted as skipped) when the caption is empty.
  bool add_sample(const std::string& key, const std::string& caption);
  void skip(const std::string& key, const std::string& reason) { skipped_.push_back({key, reason}); }
  // Mixes a fact about the source (size, time) into the fingerprint.
  void note_source(const std::string& fact);

 private:
  std::vector<std::string> captions_;
  std::unordered_map<std::string, std::int64_t> id_of_;
  std::vector<std::int64_t> caption_ids_;
  std::vector<SkippedSample> skipped_;
  std::uint64_t hash_ = 0;
};

std::string trimmed(const std::string& text);

std::shared_ptr<const Dataset> open_tars(const std::vector<std::string>& paths);
std::shared_ptr<const Dataset> open_table(const std::string& path, const DatasetOptions& options);
std::shared_ptr<const Dataset> open_folder(const std::string& path, const DatasetOptions& options);
// `a{000..012}b` and `::` written out.
std::vector<std::string> expand_braces(const std::string& spec);

}  // namespace twinlens
