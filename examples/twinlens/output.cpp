#include "examples/twinlens/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

[[noreturn]] void fail() {
  throw FileError(std::string("standard output cannot be written: ") + std::strerror(errno) +
                  "; stdout; free some space or write elsewhere");
}

}  // namespace

void print_text(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) fail();
}

std::string json_text(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

void print_json(const nlohmann::ordered_json& json) { print_text(json_text(json) + "\n"); }

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) fail();
}

}  // namespace twinlens::program
