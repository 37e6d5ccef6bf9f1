#include "twinlens/clip/dataset.h"

#include <algorithm>
#include <filesystem>
#include <glob.h>
#include <iterator>

#include "clip/src/data/captions.h"
#include "clip/src/data/dataset_base.h"
#include "clip/src/data/file_names.h"

#include "twinlens/clip/text_encoding.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

// Pieces of a path that say where data is, in ways that are not read here.
void refuse_foreign_place(const std::string& path) {
  std::error_code ignored;
  const bool is_command = path.starts_with("pipe:"), is_address = path.find("://") != std::string::npos;
  if ((!is_command && !is_address) || fs::exists(path, ignored)) return;
  throw ConfigError(std::string(is_command ? "the output of a command" : "data at an address") + " is not read; " + path +
                    "; shards are read from files, and more than once: copy them to a disk, or mount where they are");
}

// The numbers of a {first..last}, with the zeros in front that `first` has. `text` is for the error.
std::vector<std::string> range_of(const std::string& inside, const std::string& text) {
  const std::size_t dots = inside.find("..");
  const std::string first = inside.substr(0, dots), last = inside.substr(dots + 2);
  if (first.empty() || last.empty() || (first + last).find_first_not_of("0123456789") != std::string::npos || first.size() > 18 ||
      last.size() > 18) {
    throw UsageError("brace range '{" + inside + "}' is not of numbers; " + text + "; write {000..012}");
  }
  const long long from = std::stoll(first), to = std::stoll(last);
  if (to < from || to - from >= 1'000'000) {
    throw UsageError("brace range '{" + inside + "}' is empty or has more than a million numbers; " + text + "; write {000..012}");
  }
  std::vector<std::string> out;
  for (long long i = from; i <= to; ++i) {
    std::string number = std::to_string(i);
    if (number.size() < first.size()) number.insert(0, first.size() - number.size(), '0');
    out.push_back(std::move(number));
  }
  return out;
}

// One part of a spec: its first {a..b} or {a,b} from `begin` on written out, the rest by recursion. As in a shell, a list may hold lists
// and ranges, and braces around neither are part of the name.
void expand(const std::string& text, std::size_t begin, std::vector<std::string>& out) {
  const std::size_t open = text.find('{', begin);
  if (open == std::string::npos) {
    out.push_back(text);
    return;
  }
  std::vector<std::string> choices(1);
  std::size_t close = open + 1;
  for (int depth = 1; close < text.size(); ++close) {
    const char c = text[close];
    if (c == '{') ++depth;
    if (c == '}' && --depth == 0) break;
    if (c == ',' && depth == 1) {
      choices.emplace_back();
    } else {
      choices.back() += c;
    }
  }
  const bool is_list = choices.size() > 1;
  const bool is_range = !is_list && choices[0].find("..") != std::string::npos && choices[0].find('{') == std::string::npos;
  if (close == text.size() || (!is_list && !is_range)) return expand(text, open + 1, out);
  if (is_range) choices = range_of(choices[0], text);
  for (const std::string& choice : choices) expand(text.substr(0, open) + choice + text.substr(close + 1), open, out);
}

// The files that a path with *, ? or [...] in it matches, in the order of their names' bytes; any other path is itself.
void add_matches(const std::string& path, std::vector<std::string>& out) {
  std::error_code ignored;
  if (path.find_first_of("*?[") == std::string::npos || fs::exists(path, ignored)) {
    out.push_back(path);
    return;
  }
  glob_t found{};
  const int status = glob(path.c_str(), 0, nullptr, &found);
  std::vector<std::string> names(found.gl_pathv, found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
  globfree(&found);
  std::erase_if(names, is_shard_index);
  if (names.empty()) throw FileError("no file has such a name; " + path + "; check the folder and the pattern");
  std::sort(names.begin(), names.end());  // (glob sorts by the locale)
  out.insert(out.end(), std::make_move_iterator(names.begin()), std::make_move_iterator(names.end()));
}

}  // namespace

std::vector<SpecPart> parts_of(const std::string& spec, const std::vector<double>& weights) {
  std::vector<SpecPart> out;
  std::size_t begin = 0;
  while (true) {
    const auto end = spec.find("::", begin);
    out.emplace_back();
    const std::string piece = spec.substr(begin, end == std::string::npos ? std::string::npos : end - begin);
    std::error_code ignored;
    if (fs::exists(piece, ignored)) {  // (a name may have braces in it)
      out.back().paths.push_back(piece);
    } else {
      std::vector<std::string> written;
      expand(piece, 0, written);
      for (const std::string& path : written) {
        refuse_foreign_place(path);
        if (path.empty()) throw UsageError("data without a name; '" + spec + "'; give a file, a folder or shards, several between ::");
        add_matches(path, out.back().paths);
      }
    }
    if (end == std::string::npos) break;
    begin = end + 2;
  }
  if (weights.empty()) return out;
  if (weights.size() != out.size()) {
    throw UsageError(std::to_string(weights.size()) + " factors for " + std::to_string(out.size()) +
                     " sources; --train-data-upsampling-factors; give one for each part between ::");
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!(weights[i] > 0.0) || weights[i] > 1e6) {
      throw UsageError("factor " + std::to_string(weights[i]) + "; --train-data-upsampling-factors; give factors above 0, as 1::2::0.5");
    }
    out[i].weight = weights[i];
  }
  return out;
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n\f\v");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n\f\v") - first + 1);
}

std::int64_t IndexedDataset::caption_id(std::int64_t i) const { return caption_id_of(*captions_.at(static_cast<std::size_t>(i))); }

bool IndexedDataset::add_sample(const std::string& key, const std::string& caption) {
  std::string text = trimmed(std::string(without_byte_order_mark(caption)));
  if (text.empty()) {
    skip({key, "the caption is empty"});
    return false;
  }
  if (const std::string problem = encoding_problem(text); !problem.empty()) {
    skip({key, "the caption is " + problem});
    return false;
  }
  note_source(key + "\n" + text);
  captions_.push_back(&*distinct_.insert(std::move(text)).first);
  return true;
}

void IndexedDataset::note_source(const std::string& fact) { hash_ = hash_bytes(fact.data(), fact.size(), hash_); }

std::string IndexedDataset::fingerprint() const { return std::to_string(size()) + "-" + std::to_string(hash_); }

std::shared_ptr<const Dataset> open_dataset(const std::string& spec, const DatasetOptions& options) {
  // Whatever kind of data it turns out to be.
  if (options.captions != "first" && options.captions != "random" && options.captions != "all")
    throw UsageError("unknown policy '" + options.captions + "'; --captions; use first, random or all");
  if (options.compressed != "auto" && options.compressed != "unpack" && options.compressed != "stream")
    throw UsageError("unknown form '" + options.compressed + "'; --compressed-shards; use auto, unpack or stream");
  const std::vector<SpecPart> parts = parts_of(spec, options.upsampling);
  const std::vector<std::string>& paths = parts[0].paths;
  std::string type = options.type;
  std::error_code ignored;
  if (fs::is_other(fs::status(paths[0], ignored))) {
    throw FileError("data cannot come through a pipe or a device, as it is read more than once; " + paths[0] +
                    "; write it to a file (.tar, .csv, .tsv) and give that");
  }
  if (type == "auto") {
    if (fs::is_directory(paths[0], ignored)) {
      type = "folder";
    } else if (ends_like(paths[0], {".csv", ".tsv"})) {
      type = "csv";
    } else if (is_tar(paths[0])) {
      type = "webdataset";
    } else if (!fs::exists(paths[0], ignored)) {
      throw FileError("data does not exist; " + paths[0] + "; check --train-data, --val-data or --data");
    } else if (is_foreign_archive(paths[0])) {
      throw ConfigError("archives of this kind are not read; " + paths[0] + "; " + kForeignArchive);
    } else {
      throw ConfigError("cannot tell what kind of data this is; " + paths[0] +
                        "; use .tar shards, .csv, .tsv or a folder, or say --dataset-type");
    }
  }
  const bool joined = parts.size() > 1 || paths.size() > 1;
  for (const SpecPart& part : parts) {
    for (const std::string& path : part.paths) {
      if (joined && (type != "webdataset" || ends_like(path, {".csv", ".tsv"}) || fs::is_directory(path, ignored)))
        throw ConfigError("only webdataset shards can be joined by ::, and this is none: " + path + "; " + spec +
                          "; give shards alone, or one file or folder");
    }
  }
  if (type == "webdataset") return open_tars(parts, options);
  if (parts[0].weight != 1.0)
    throw UsageError("factors weigh shards, and this is none: " + spec + "; --train-data-upsampling-factors; leave it out");
  if (type == "csv") return open_table(paths[0], options);
  if (type == "folder") return open_folder(paths[0], options);
  throw UsageError("unknown dataset type '" + type + "'; --dataset-type; use auto, webdataset, csv or folder");
}

}  // namespace twinlens
