#pragma once
// The words of a command line before CLI11 parses them: what it would take for something else than was meant.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace twinlens::program {

// What is wrong with `words`, the first of which names `app`, or nothing. A flag whose value is missing would have the flag behind it for
// one: --text --top 3 would ask for pictures of "--top".
std::string missing_value(const CLI::App& app, const std::vector<std::string>& words);

// Of a list of paths CLI11 reads [a,b] as two: such words get a ./ before them.
void keep_brackets(const CLI::App& app, std::vector<std::string>& words);

}  // namespace twinlens::program
