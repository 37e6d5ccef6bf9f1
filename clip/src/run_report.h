#pragma once
// What a finished run leaves beside its checkpoints: skipped.tsv and report.html.

#include <filesystem>
#include <vector>

#include "clip/src/checkpoint.h"

#include "twinlens/clip/evaluation.h"
#include "twinlens/clip/report.h"
#include "twinlens/clip/trainer.h"

namespace twinlens {

// Tabs and line breaks become spaces: what a key is in skipped.tsv.
std::string one_line(std::string text);
// key TAB reason a line; written only when something was skipped.
void write_skipped(const std::filesystem::path& file, const std::vector<SkippedSample>& skipped);
// What an earlier part of the run wrote; empty when there is no such file.
std::vector<SkippedSample> read_skipped(const std::filesystem::path& file);

// report.html with the curves of metrics.jsonl and, when there is validation data, what its captions find and where the model errs.
void write_run_report(const std::filesystem::path& folder, const TrainOptions& options, const Clip& model, const Tokenizer& tokenizer,
                      const Dataset* validation, const EmbedOptions& embed, const TrainState& state, const ReportTable& data);

}  // namespace twinlens
