#include "clip/src/data/table_rows.h"

#include <algorithm>

#include "clip/src/data/dataset_base.h"

namespace twinlens {
namespace {

constexpr std::size_t kLongestRow = std::size_t{1} << 20;

// Whether what stands here, behind a closing quote, ends the cell.
bool ends_cell(std::string_view text, std::size_t i, char separator) {
  while (i < text.size() && text[i] == ' ' && separator != ' ') ++i;
  return i >= text.size() || text[i] == separator || text[i] == '\n' || text[i] == '\r';
}

std::string too_long() { return "the row is longer than " + std::to_string(kLongestRow) + " bytes"; }

}  // namespace

bool read_row(std::string_view text, std::size_t& at, char separator, TableRow& row, bool& quoted, std::vector<QuotedLines>& lines) {
  row.assign(1, {});
  quoted = false;
  lines.clear();
  QuotedLines cell;
  bool has_lines = false;
  for (std::size_t i = at; i < text.size();) {
    const char c = text[i++];
    if (quoted) {
      has_lines = has_lines || c == '\n';
      if (c != '"') {
        row.back() += c;
      } else if (i < text.size() && text[i] == '"') {
        row.back() += text[i++];
      } else {
        quoted = false;
        cell.end = i;
        cell.torn = !ends_cell(text, i, separator);
        if (has_lines) lines.push_back(cell);
      }
    } else if (c == '"' && row.back().empty()) {
      quoted = true;
      has_lines = false;
      cell = {row.size() - 1, i - 1, 0, false};
    } else if (c == separator) {
      row.emplace_back();
    } else if (c == '\n') {
      at = i;
      return true;
    } else if (c != '\r') {
      row.back() += c;
    }
  }
  cell.end = text.size();
  if (quoted) lines.push_back(cell);
  return false;
}

void RowReader::expect(std::size_t picture, std::size_t columns, std::function<bool(const std::string&)> is_picture) {
  picture_ = picture;
  columns_ = columns;
  is_picture_ = std::move(is_picture);
}

bool RowReader::next(TableRow& row, char separator, std::string& problem) {
  problem.clear();
  if (position() >= file_.size()) return false;
  std::size_t end = at_;
  bool quoted = false;
  std::vector<QuotedLines> lines;
  bool whole = read_row(window_, end, separator, row, quoted, lines);
  if (!whole) {
    fill();
    end = at_;
    whole = read_row(window_, end, separator, row, quoted, lines);
    if (!whole) end = window_.size();
  }
  const bool is_last = window_begin_ + window_.size() >= file_.size();
  const auto line_at = [&](std::size_t place) {
    return std::to_string(line_ + static_cast<std::uint64_t>(std::count(window_.data() + at_, window_.data() + place, '\n')));
  };
  for (const QuotedLines& quotes : lines) {
    const bool is_open = quoted && &quotes == &lines.back();
    if (!is_open && !quotes.torn && !swallows_rows(quotes, end, separator)) continue;
    problem = (is_open && !is_last ? too_long() + " behind a quote" : "a quote is not closed in its row") + "; it opens in line " +
              line_at(quotes.begin) + ": close it, or put the whole cell in quotes and write \"\" for each quote in it";
    leave_line(quotes.begin);
    return true;
  }
  if (!whole && !is_last) {
    problem = too_long() + "; it begins in line " + std::to_string(line_);
    leave_line(at_);
    return true;
  }
  line_ += static_cast<std::uint64_t>(std::count(window_.data() + at_, window_.data() + end, '\n'));
  at_ = end;  // (the last row may have no line break)
  return true;
}

// Moves the window to the next row.
void RowReader::fill() {
  window_begin_ += at_;
  at_ = 0;
  window_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kLongestRow, file_.size() - window_begin_)));
  file_.read_at(window_begin_, window_.data(), window_.size());
}

// Goes on behind the line that has this place of the window, however far that is.
void RowReader::leave_line(std::size_t from) {
  line_ += static_cast<std::uint64_t>(std::count(window_.data() + at_, window_.data() + from, '\n')) + 1;
  at_ = window_.find('\n', from);
  while (at_ == std::string::npos) {
    at_ = window_.size();
    if (position() >= file_.size()) return;
    fill();
    at_ = window_.find('\n');
  }
  ++at_;
}

// Whether lines within these quotes are rows. The line in which they open counts from the quote on, if the picture comes behind it; that in
// which they close, if the picture comes before.
bool RowReader::swallows_rows(const QuotedLines& quotes, std::size_t row_end, char separator) const {
  const std::string_view row = std::string_view(window_).substr(0, row_end);
  std::size_t begin = quotes.begin;
  while (begin < quotes.end) {
    const std::size_t end = std::min(row.find('\n', begin), row.size());
    const bool opens = begin == quotes.begin, closes = end >= quotes.end;
    const bool counts = opens ? quotes.cell < picture_ : !closes || quotes.cell > picture_;
    if (counts && is_row(row.substr(begin, end - begin), opens ? quotes.cell : 0, separator)) return true;
    begin = end + 1;
  }
  return false;
}

bool RowReader::is_row(std::string_view line, std::size_t first_column, char separator) const {
  std::size_t column = first_column;
  std::string picture;
  for (std::size_t begin = 0; begin <= line.size(); ++column) {
    const std::size_t end = std::min(line.find(separator, begin), line.size());
    if (column == picture_) picture = trimmed(std::string(line.substr(begin, end - begin)));
    begin = end + 1;
  }
  if (picture.size() > 1 && picture.front() == '"' && picture.back() == '"') picture = picture.substr(1, picture.size() - 2);
  return is_picture_ && column >= columns_ && !picture.empty() && is_picture_(picture);
}

}  // namespace twinlens
