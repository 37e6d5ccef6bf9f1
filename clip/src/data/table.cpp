// CSV and TSV by RFC 4180: quotes may hold separators and line breaks, "" is a quote.

#include <algorithm>
#include <filesystem>

#include "clip/src/data/dataset_base.h"

#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;
using Row = std::vector<std::string>;

// The row that begins at `at`, which moves behind it.
Row read_row(const std::string& text, std::size_t& at, char separator) {
  Row row(1);
  bool quoted = false;
  while (at < text.size()) {
    const char c = text[at++];
    if (quoted) {
      if (c != '"') {
        row.back() += c;
      } else if (at < text.size() && text[at] == '"') {
        row.back() += text[at++];
      } else {
        quoted = false;
      }
    } else if (c == '"' && row.back().empty()) {
      quoted = true;
    } else if (c == separator) {
      row.emplace_back();
    } else if (c == '\n') {
      break;
    } else if (c != '\r') {
      row.back() += c;
    }
  }
  return row;
}

char sniff(const std::string& text, const std::string& given) {
  if (given == "\\t" || given == "tab") return '\t';
  if (!given.empty()) return given[0];
  const std::string header = text.substr(0, text.find('\n'));
  char best = ',';
  std::ptrdiff_t most = 0;
  for (const char c : {'\t', ',', ';', '|'}) {
    const auto count = std::count(header.begin(), header.end(), c);
    if (count > most) {
      most = count;
      best = c;
    }
  }
  return best;
}

std::size_t column(const Row& header, const std::string& wanted, std::initializer_list<const char*> aliases, const char* what,
                   const char* flag, const std::string& path) {
  const auto find = [&](const std::string& name) { return std::find(header.begin(), header.end(), name); };
  if (!wanted.empty()) {
    if (const auto it = find(wanted); it != header.end()) return static_cast<std::size_t>(it - header.begin());
  } else {
    for (const char* alias : aliases) {
      if (const auto it = find(alias); it != header.end()) return static_cast<std::size_t>(it - header.begin());
    }
  }
  std::string found;
  for (const std::string& name : header) found += (found.empty() ? "" : ", ") + name;
  throw ConfigError("no column '" + (wanted.empty() ? std::string(*aliases.begin()) : wanted) + "' for the " + what + "; " + path +
                    " has the columns " + found + "; name one with " + flag);
}

class TableDataset final : public IndexedDataset {
 public:
  TableDataset(const std::string& path, const DatasetOptions& options)
      : name_(fs::path(path).filename().string()), folder_(fs::path(path).parent_path()) {
    const std::string text = read_file(path);
    note_source(name_ + std::to_string(text.size()));
    const char separator = sniff(text, options.csv_separator);
    std::size_t at = text.rfind("\xEF\xBB\xBF", 0) == 0 ? 3 : 0;
    header_ = read_row(text, at, separator);
    const std::size_t image = column(header_, options.csv_img_key, {"filepath", "image", "image_path", "path", "file", "filename"},
                                     "image paths", "--csv-img-key", path);
    const std::size_t caption =
        column(header_, options.csv_caption_key, {"title", "caption", "text", "description"}, "captions", "--csv-caption-key", path);
    for (std::int64_t line = 2; at < text.size(); ++line) {
      Row row = read_row(text, at, separator);
      if (row.size() == 1 && row[0].empty()) continue;
      const std::string key = name_ + ":" + std::to_string(line);
      if (row.size() <= std::max(image, caption)) {
        skip(key, "the row has " + std::to_string(row.size()) + " of " + std::to_string(header_.size()) + " columns");
      } else if (row[image].empty()) {
        skip(key, "the image path is empty");
      } else if (add_sample(key, row[caption])) {
        image_ = image;
        keys_.push_back(key);
        rows_.push_back(std::move(row));
      }
    }
  }

  std::string key(std::int64_t i) const override { return keys_.at(static_cast<std::size_t>(i)); }
  std::string image_bytes(std::int64_t i) const override {
    return read_file((folder_ / rows_.at(static_cast<std::size_t>(i))[image_]).string());
  }
  std::string field(std::int64_t i, const std::string& name) const override {
    const auto it = std::find(header_.begin(), header_.end(), name);
    const Row& row = rows_.at(static_cast<std::size_t>(i));
    const auto at = static_cast<std::size_t>(it - header_.begin());
    return it == header_.end() || at >= row.size() ? std::string() : row[at];
  }

 private:
  std::string name_;
  fs::path folder_;
  Row header_;
  std::size_t image_ = 0;
  std::vector<std::string> keys_;
  std::vector<Row> rows_;
};

}  // namespace

std::shared_ptr<const Dataset> open_table(const std::string& path, const DatasetOptions& options) {
  return std::make_shared<TableDataset>(path, options);
}

}  // namespace twinlens
