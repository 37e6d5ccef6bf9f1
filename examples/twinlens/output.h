#pragma once
// What the subcommands say on stdout. A write that fails (a full disk, a closed descriptor) is an error of the run: FileError.

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string_view>

namespace twinlens::program {

void print_text(std::string_view text);

// One JSON document on a line. Bytes that are not UTF-8 (of a file name, a caption) become U+FFFD.
void print_json(const nlohmann::ordered_json& json);

// The text of one value, by the same rule.
std::string json_text(const nlohmann::ordered_json& json);

template <class... Values>
void print(fmt::format_string<Values...> format, Values&&... values) {
  print_text(fmt::format(format, std::forward<Values>(values)...));
}

// Hands on what is buffered. Called at the end of every command.
void flush_output();

}  // namespace twinlens::program
