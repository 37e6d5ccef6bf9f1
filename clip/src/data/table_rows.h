#pragma once
// Rows of a CSV or TSV file by RFC 4180: quotes may hold separators and line breaks, "" is a quote. Where a cell begins with a quote that
// was meant as text, RFC 4180 has the cell run on to the next quote, rows away. Such a quote is found, and costs its own line alone.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "twinlens/core/file.h"

namespace twinlens {

using TableRow = std::vector<std::string>;

// A cell in quotes that has line breaks: its number in the row, and where its quotes stand.
struct QuotedLines {
  std::size_t cell = 0, begin = 0, end = 0;
  bool torn = false;  // more of the cell follows behind the closing quote: these two were no pair
};

// The row that begins at `at`, which moves behind it. False when the text ends first (and more of the file may follow), `quoted` when it
// ends within quotes, which then are the last of `lines`.
bool read_row(std::string_view text, std::size_t& at, char separator, TableRow& row, bool& quoted, std::vector<QuotedLines>& lines);

// The rows in order, a piece of the file in memory at a time.
class RowReader {
 public:
  explicit RowReader(const InputFile& file) : file_(file) { fill(); }
  std::string_view start() const { return std::string_view(window_).substr(at_); }
  void skip(std::size_t bytes) { at_ += bytes; }
  // From here on, lines with so many columns whose cell `picture` is that of a picture are rows, and are not swallowed by quotes.
  void expect(std::size_t picture, std::size_t columns, std::function<bool(const std::string&)> is_picture);
  // Where the next row begins.
  std::uint64_t position() const { return window_begin_ + at_; }
  std::uint64_t line() const { return line_; }  // the same as editors count
  // False at the end of the file. Where a row cannot be made out, `problem` says why, and the next one is that of the next line.
  bool next(TableRow& row, char separator, std::string& problem);

 private:
  void fill();
  void leave_line(std::size_t from);
  bool swallows_rows(const QuotedLines& quotes, std::size_t row_end, char separator) const;
  bool is_row(std::string_view line, std::size_t first_column, char separator) const;

  const InputFile& file_;
  std::string window_;
  std::uint64_t window_begin_ = 0, line_ = 1;  // line_: of the next row
  std::size_t at_ = 0, picture_ = 0, columns_ = 0;
  std::function<bool(const std::string&)> is_picture_;
};

}  // namespace twinlens
