// CSV and TSV. The text stays on the disk.

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>

#include "clip/src/data/captions.h"
#include "clip/src/data/dataset_base.h"
#include "clip/src/data/table_rows.h"

#include "twinlens/clip/nearest_name.h"
#include "twinlens/clip/text_encoding.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

namespace fs = std::filesystem;

char sniff(std::string_view text, const std::string& given) {
  if (given == "\\t" || given == "tab") return '\t';
  if (given.size() > 1)
    throw UsageError("'" + given + "' is not one character; --csv-separator; give one, or tab, or leave it out to have it found");
  if (!given.empty()) return given[0];
  text.remove_prefix(std::min(text.find_first_not_of("\r\n"), text.size()));
  const std::string_view header = text.substr(0, text.find('\n'));
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

std::string plain_name(const std::string& name) {
  std::string out = trimmed(name);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

std::size_t column(const TableRow& header, const std::string& wanted, std::initializer_list<const char*> aliases, const char* what,
                   const char* flag, const std::string& path) {
  if (!wanted.empty()) {
    if (const auto it = std::find(header.begin(), header.end(), wanted); it != header.end())
      return static_cast<std::size_t>(it - header.begin());
  } else {
    for (const bool exact : {true, false}) {
      for (const char* alias : aliases) {
        const auto it =
            std::find_if(header.begin(), header.end(), [&](const std::string& name) { return (exact ? name : plain_name(name)) == alias; });
        if (it != header.end()) return static_cast<std::size_t>(it - header.begin());
      }
    }
  }
  std::string found, near;
  for (const std::string& name : header) {
    found += (found.empty() ? "" : ", ") + (trimmed(name) == name ? name : "'" + name + "'");
    if (near.empty() && !wanted.empty() && plain_name(name) == plain_name(wanted)) near = name;
  }
  if (near.empty() && !wanted.empty()) near = nearest_name(wanted, header);
  throw ConfigError("no column '" + (wanted.empty() ? std::string(*aliases.begin()) : wanted) + "' for the " + what + "; " + path +
                    " has the columns " + found + "; " +
                    (near.empty() ? "name one with " + std::string(flag) : "did you mean " + std::string(flag) + " '" + near + "'?"));
}

// Files that are no tables as they are, and what makes them so.
void check_form(const InputFile& file, std::string_view start) {
  if (start.find_first_not_of(" \t\r\n") == std::string_view::npos)
    throw FileError("the table is empty; " + file.path() + "; give it a header, as filepath,title, and a row for each picture");
  const std::string encoding = encoding_problem(start.substr(0, 4096));
  if (encoding.starts_with("UTF-16")) throw FileError("the table cannot be read; " + file.path() + " is " + encoding);
  const std::string_view head = start.substr(0, std::min<std::size_t>(4096, start.find('\n')));  // (captions may have anything)
  const auto no_text = std::find_if(head.begin(), head.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && std::string_view("\t\n\v\f\r\x1b").find(c) == std::string_view::npos;
  });
  if (no_text != head.end())
    throw FileError("the table is no text: byte " + std::to_string(no_text - head.begin() + 1) + " is a control character; " + file.path() +
                    "; give CSV or TSV (a spreadsheet can be saved as CSV, .csv.gz unpacked), or another --dataset-type");
  if (start.find('\n') == std::string_view::npos && trimmed(std::string(start)).find('\r') != std::string::npos)
    throw FileError("the lines of the table end in CR alone; " + file.path() + "; tr '\\r' '\\n' < FILE > NEW makes it readable");
}

// Where every row stands and what its caption's id is: 24 bytes a row. Rows are read again when they are asked for.
class TableDataset final : public Dataset {
 public:
  TableDataset(const std::string& path, const DatasetOptions& options)
      : file_(path), name_(fs::path(path).filename().string()), folder_(fs::path(path).parent_path()) {
    RowReader rows(file_);
    rows.skip(rows.start().size() - without_byte_order_mark(rows.start()).size());
    check_form(file_, rows.start());
    separator_ = sniff(rows.start(), options.csv_separator);
    std::string problem;
    do {
      rows.next(header_, separator_, problem);
    } while (problem.empty() && header_.size() == 1 && trimmed(header_[0]).empty() && rows.position() < file_.size());
    if (!problem.empty()) throw FileError("the header cannot be read: " + problem + "; " + path);
    image_ = column(header_, options.csv_img_key, {"filepath", "image", "image_path", "path", "file", "filename", "file_name"},
                    "image paths", "--csv-img-key", path);
    caption_ = column(header_, options.csv_caption_key, {"title", "caption", "text", "description"}, "captions", "--csv-caption-key", path);
    note(name_ + std::to_string(file_.size()));
    TableRow row;
    rows.expect(image_, std::max(image_, caption_) + 1, [this](const std::string& picture) {
      std::error_code ignored;
      return fs::is_regular_file(folder_ / picture, ignored);
    });
    while (true) {
      const std::uint64_t begin = rows.position();
      const auto line = static_cast<std::uint32_t>(rows.line());
      if (!rows.next(row, separator_, problem)) break;
      if (problem.empty()) {
        add(row, begin, static_cast<std::uint32_t>(rows.position() - begin), line);
      } else {
        skipped_.push_back({label(line), problem});
      }
    }
    if (places_.empty()) {
      const std::string none = skipped_.empty() ? "it has no row below its header"
                                                : "its " + std::to_string(skipped_.size()) +
                                                      " rows cannot be used, first: " + skipped_[0].key + ": " + skipped_[0].reason;
      throw FileError("no samples: " + none + "; " + path + "; give each row a picture and a caption");
    }
    find_pictures(path);
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(places_.size()); }
  std::string key(std::int64_t i) const override { return label(at(i).line); }
  std::string image_bytes(std::int64_t i) const override { return read_file(picture_place(i)); }
  std::string picture_place(std::int64_t i) const override { return (folder_ / row(i)[image_]).string(); }
  std::string caption(std::int64_t i) const override { return trimmed(row(i)[caption_]); }
  std::int64_t caption_id(std::int64_t i) const override { return at(i).caption_id; }
  std::string field(std::int64_t i, const std::string& name) const override {
    const auto it = std::find(header_.begin(), header_.end(), name);
    const auto which = static_cast<std::size_t>(it - header_.begin());
    if (it == header_.end()) return {};
    const TableRow cells = row(i);
    return which < cells.size() ? cells[which] : std::string();
  }
  const std::vector<SkippedSample>& skipped() const override { return skipped_; }
  std::string fingerprint() const override { return std::to_string(size()) + "-" + std::to_string(hash_); }

 private:
  struct Place {
    std::uint64_t begin = 0;
    std::int64_t caption_id = 0;
    std::uint32_t bytes = 0, line = 0;
  };

  void add(const TableRow& row, std::uint64_t begin, std::uint32_t bytes, std::uint32_t line) {
    if (row.size() == 1 && trimmed(row[0]).empty()) return;
    const std::string key = label(line);
    if (row.size() <= std::max(image_, caption_)) {
      skipped_.push_back({key, "the row has " + std::to_string(row.size()) + " of " + std::to_string(header_.size()) + " columns"});
    } else if (std::any_of(row.begin() + static_cast<std::ptrdiff_t>(std::min(row.size(), header_.size())), row.end(),
                           [](const std::string& cell) { return !trimmed(cell).empty(); })) {
      skipped_.push_back({key, "the row has " + std::to_string(row.size()) + " columns, the header " + std::to_string(header_.size()) +
                                   "; put quotes around what holds the separator"});
    } else if (row[image_].empty()) {
      skipped_.push_back({key, "the image path is empty"});
    } else if (const std::string text = trimmed(row[caption_]); text.empty()) {
      skipped_.push_back({key, "the caption is empty"});
    } else if (const std::string problem = encoding_problem(text); !problem.empty()) {
      skipped_.push_back({key, "the caption is " + problem});
    } else {
      note(row[image_] + "\n" + text);
      places_.push_back({begin, caption_id_of(text), bytes, line});
    }
  }
  // Paths begin in the folder of the table, which can be moved with it, or in the current folder, as open_clip's do. Paths that lead
  // nowhere are found before the first step, not in the middle of it.
  void find_pictures(const std::string& path) {
    const std::int64_t some = std::min<std::int64_t>(size(), 1000);
    const auto has_any = [&](const fs::path& folder) {
      std::error_code ignored;
      for (std::int64_t i = 0; i < some; ++i) {  // from all over the table
        if (fs::exists(folder / row(i * size() / some)[image_], ignored)) return true;
      }
      return false;
    };
    if (has_any(folder_)) return;
    std::error_code ignored;
    const fs::path current = fs::current_path(ignored);
    if (!current.empty() && has_any(current)) {
      std::fprintf(stderr, "note: the pictures of %s are found from the current folder, not from the table's\n", path.c_str());
      folder_ = current;
      return;
    }
    const std::string named = row(0)[image_];
    throw FileError("none of " + std::to_string(some) + " pictures" + (some < size() ? " from all over the table" : "") + " exists; " +
                    path + ", column '" + header_[image_] + "', begins with '" + named + "', looked for as " +
                    fs::absolute(folder_ / named, ignored).string() +
                    "; paths are relative to the folder of the table, or to the current one: put the table where they begin, "
                    "write whole paths, or name another column with --csv-img-key");
  }
  void note(const std::string& fact) { hash_ = hash_bytes(fact.data(), fact.size(), hash_); }
  std::string label(std::uint32_t line) const { return name_ + ":" + std::to_string(line); }
  const Place& at(std::int64_t i) const { return places_.at(static_cast<std::size_t>(i)); }
  TableRow row(std::int64_t i) const {
    const Place& place = at(i);
    std::string text(place.bytes, '\0');
    file_.read_at(place.begin, text.data(), text.size());
    std::size_t begin = 0;
    bool quoted = false;
    TableRow cells;
    std::vector<QuotedLines> lines;
    read_row(text, begin, separator_, cells, quoted, lines);
    if (cells.size() <= std::max(image_, caption_)) {
      throw FileError("a row is not what it was; " + key(i) + "; the table was changed while it was in use: start again");
    }
    return cells;
  }

  InputFile file_;
  std::string name_;
  fs::path folder_;
  char separator_ = ',';
  TableRow header_;
  std::size_t image_ = 0, caption_ = 0;
  std::vector<Place> places_;
  std::vector<SkippedSample> skipped_;
  std::uint64_t hash_ = 0;
};

}  // namespace

std::shared_ptr<const Dataset> open_table(const std::string& path, const DatasetOptions& options) {
  return std::make_shared<TableDataset>(path, options);
}

}  // namespace twinlens
