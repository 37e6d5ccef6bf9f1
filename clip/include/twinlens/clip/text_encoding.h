#pragma once
// The character encoding of text files: UTF-8, with or without a byte order mark (BOM). (encode_text() is in model.h.)

#include <cstdint>
#include <istream>
#include <string>
#include <string_view>

namespace twinlens {

// The text without the byte order mark of UTF-8 that it may begin with.
std::string_view without_byte_order_mark(std::string_view text);

// "UTF-16, not UTF-8; ..." or "not UTF-8; ...", with the remedy. Empty for text in UTF-8.
std::string encoding_problem(std::string_view text);

// Throws FileError, with the remedy, for line `number` (from 1) of a list when it is not in UTF-8. Lists, unlike captions, go line by line
// with something else, so that none of theirs is left out.
void require_utf8(std::string_view line, const std::string& file, std::int64_t number);

// The next line of a list that is read from `lines`, without what ends it and without a byte order mark; false behind the last one.
// `number` is 0 before the first and counts them.
bool next_list_line(std::istream& lines, const std::string& file, std::int64_t& number, std::string& line);

}  // namespace twinlens
