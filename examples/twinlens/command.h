#pragma once
// The twinlens program: one file per subcommand. Each adds its flags to the command line and returns what to run.

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <string>

namespace twinlens::program {

// Prints to stdout (output.h) one JSON document (--json) or text for people; messages go to stderr. Returns the exit status.
using Action = std::function<int()>;

Action add_train(CLI::App& app);
Action add_eval(CLI::App& app);
Action add_convert(CLI::App& app);
Action add_blend(CLI::App& app);
Action add_embed(CLI::App& app);
Action add_classify(CLI::App& app);
Action add_rank(CLI::App& app);
Action add_index(CLI::App& app);
Action add_search(CLI::App& app);
Action add_preprocess(CLI::App& app);
Action add_tokenize(CLI::App& app);
Action add_info(CLI::App& app);

// --device cpu or cuda[:i].
CLI::Option* add_device(CLI::App& app, std::string& device);
// --precision, the names that compute_of_precision() knows.
CLI::Option* add_precision(CLI::App& app, std::string& precision);

// Says what is wrong with the flags of `command` and returns the exit status of that.
int wrong_usage(const std::string& message, const std::string& command);

// True after Ctrl-C, SIGTERM or SIGHUP; a second Ctrl-C or SIGTERM ends the process. For train, embed and index: they end in order. The
// first signal ends the other subcommands.
const std::atomic<bool>& stop_requested();

}  // namespace twinlens::program
