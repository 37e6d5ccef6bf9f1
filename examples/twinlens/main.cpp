#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>
#if defined(__linux__)
#include <unistd.h>
#endif

#include "examples/twinlens/command.h"
#include "examples/twinlens/command_words.h"
#include "examples/twinlens/number_checks.h"
#include "examples/twinlens/output.h"

#include "twinlens/clip/nearest_name.h"
#include "twinlens/core/tensor.h"
#include "twinlens/kernels/error.h"

namespace twinlens::program {
namespace {

constexpr int kFailure = 1, kWrongUsage = 2;

std::atomic<bool> stop{false};

void on_signal(int signal) {
  if (stop.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

// A terminal that goes away sends more than one of them.
void on_hangup(int) { stop = true; }

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// "--top: must be a whole number from ..." of what CLI11 could not convert, which are the numbers that fit into 64 bits and not into the
// flag's.
std::string conversion_message(const std::string& message) {
  const std::string begin = "Could not convert: ";
  const auto equals = message.find(" = ");
  if (!message.starts_with(begin) || equals == std::string::npos) return message;
  const std::string flag = message.substr(begin.size(), equals - begin.size()), value = message.substr(equals + 3);
  if (!is_whole_number<std::int64_t>(value)) return message;
  return flag + ": must be " + whole_number_rule<int>() + ", not " + value;
}

// What stands for a flag of open_clip that `train` does not have and whose nearest name would mislead; nullptr: nothing.
const char* instead_of(const CLI::App& app, const std::string& flag) {
  static const std::map<std::string, const char*> known{
      {"--train-num-samples", "shards are counted when they are opened: leave it out; --epochs says how long to train"},
      {"--val-num-samples", "shards are counted when they are opened: leave it out; --val-data says what is evaluated"},
      {"--dataset-resampled",
       "an epoch takes each sample once, in an order of its own: leave it out; --train-data-upsampling-factors weighs sources"},
      {"--opt", "the optimizer is AdamW: leave it out"},
      {"--momentum", "the optimizer is AdamW: leave it out; --beta1 is its first moment's"},
      {"--skip-scheduler", "--lr-scheduler const with --warmup 0 keeps the rate as it is"},
      {"--local-loss", "the loss takes a process's own rows against all columns: leave it out"},
      {"--gather-with-grad", "gradients of gathered features count: leave it out"},
      {"--log-local", "--log-every-n-steps and --report-to say what is written"},
      {"--imagenet-val", "--val-data takes a folder of class folders; `twinlens eval --task zeroshot` evaluates a model on one"},
      {"--zeroshot-frequency", "--val-frequency says how often --val-data is evaluated"},
      {"--torchcompile", "kernels are compiled already: leave it out"},
  };
  const auto it = known.find(flag);
  return app.get_name() != "train" || it == known.end() ? nullptr : it->second;
}

// Names the flag that was not understood and the nearest known one.
int explain_usage(const CLI::App& app, const CLI::App& program, const CLI::ParseError& error, const std::vector<std::string>& words) {
  std::string message = conversion_message(error.what());
  const std::vector<std::string> flags = flags_of(app);
  for (const std::string& word : words) {
    const std::string flag = word.substr(0, word.find('='));
    if (flag.rfind("--", 0) == 0 && std::find(flags.begin(), flags.end(), flag) == flags.end()) {
      const char* const instead = instead_of(app, flag);
      message = "unknown flag " + flag + "; " + (instead != nullptr ? instead : "did you mean " + nearest_name(flag, flags) + "?");
      break;
    }
  }
  for (const std::string& word : app.remaining()) {
    if (!word.starts_with("-") || word.starts_with("--") || word.size() < 2) continue;
    message = "unknown flag " + word + "; did you mean " + nearest_name(word, flags) + "? (a file of this name is ./" + word + ")";
    break;
  }
  if (&app == &program && !words.empty() && words[0].rfind("-", 0) != 0) {
    std::vector<std::string> names;
    for (const CLI::App* sub : program.get_subcommands({})) names.push_back(sub->get_name());
    message = "unknown subcommand '" + words[0] + "'; did you mean " + nearest_name(words[0], names) + "?";
  }
  return wrong_usage(message, &app == &program ? "" : app.get_name());
}

// Help, or the version.
int shown(const CLI::App& program, const CLI::Success& wanted) {
  const int status = program.exit(wanted);
  flush_output();
  return status;
}

int run_program(int argc, char** argv) {
  CLI::App program{"Trains CLIP and uses it: images and captions in one embedding space.", "twinlens"};
  program.require_subcommand(1);
  std::map<const CLI::App*, Action> actions;
  std::set<const CLI::App*> stoppable;  // they ask stop_requested() and end in order; the others end at once
  const auto add = [&](const char* name, const char* description, Action (*make)(CLI::App&)) {
    CLI::App* app = program.add_subcommand(name, description);
    actions[app] = make(*app);
    refuse_unreadable_numbers(*app);
    // Of a flag that is given twice the last counts, as in open_clip: scripts add theirs to a line of defaults.
    for (CLI::Option* option : app->get_options()) {
      if (option->get_items_expected_max() == 1) option->take_last();
    }
    return app;
  };
  stoppable.insert(add("train", "Train or fine-tune a model on image-text pairs", add_train));
  add("eval", "Retrieval, zero-shot classification, linear probe or k-NN on a dataset", add_eval);
  stoppable.insert(add("embed", "Embeddings of images or texts to a safetensors file", add_embed));
  add("classify", "Zero-shot labels for images", add_classify);
  add("rank", "Order images by how well they fit a caption", add_rank);
  stoppable.insert(add("index", "Index pictures of folders and tars for search", add_index));
  add("search", "Pictures of an index that fit a text or a picture", add_search);
  add("preprocess", "A picture as the model's input", add_preprocess);
  add("tokenize", "Lines of stdin to token ids, one JSON array a line; or train a vocabulary", add_tokenize);
  add("convert", "Rewrite a model in the OpenAI, open_clip or Hugging Face layout, bit for bit", add_convert);
  add("blend", "A model between two: before fine-tuning and after it (WiSE-FT)", add_blend);
  add("info", "Configuration, parameter counts and forward GFLOPs of a model", add_info);
  program.set_version_flag("--version", std::string("twinlens ") + TWINLENS_VERSION);
  program.set_help_all_flag("--help-all", "Help of every subcommand");  // after them, or each would have it, too

  std::vector<std::string> words(argv + 1, argv + argc);
  for (const CLI::App* app : program.get_subcommands([&](const CLI::App* sub) { return !words.empty() && sub->get_name() == words[0]; })) {
    if (const std::string problem = missing_value(*app, words); !problem.empty()) return wrong_usage(problem, words[0]);
    keep_brackets(*app, words);
  }
  try {
    program.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::Success& wanted) {
    return shown(program, wanted);
  } catch (const CLI::ParseError& error) {
    const std::vector<CLI::App*> chosen = program.get_subcommands();
    return explain_usage(chosen.empty() ? program : *chosen.front(), program, error, words);
  }
  const CLI::App* chosen = program.get_subcommands().front();
  if (stoppable.count(chosen) > 0) {
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    if (std::signal(SIGHUP, on_hangup) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup
    std::signal(SIGPIPE, SIG_IGN);                                                // work goes on where nobody reads its messages any more
  }
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows beyond a limit is an error of the write, not the end of the process
  const int status = actions.at(chosen)();
  flush_output();
  return status;
}

// Threads of a step that wait for each other spin, by default for so long that loader threads, or anything else on the machine, starve
// beside them (a training run on 2 cores loses a seventh of its time, one beside a compiler half). OpenMP reads its environment when it
// is loaded, so the program starts itself once more. OMP_WAIT_POLICY or GOMP_SPINCOUNT of the user's own choice stand.
void wait_briefly(char** argv) {
#if defined(__linux__)
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "2000", 1);
  execv("/proc/self/exe", argv);  // where that fails, the run is slower and not wrong
#endif
}

}  // namespace

const std::atomic<bool>& stop_requested() { return stop; }

CLI::Option* add_precision(CLI::App& app, std::string& precision) {
  return app.add_option("--precision", precision, "fp32; tf32 (a card's, elsewhere fp32); amp_bf16 (also bf16); amp (f16, on a card)")
      ->capture_default_str()
      ->transform([](const std::string& name) { return name == "bf16" ? "amp_bf16" : name; })
      ->check(CLI::IsMember({"fp32", "tf32", "amp_bf16", "amp"}));
}

CLI::Option* add_device(CLI::App& app, std::string& device) {
  const auto check = [](std::string& text) -> std::string {
    try {
      parse_device(text);
      return {};
    } catch (const ConfigError&) {
      return "must be cpu, cuda or cuda:INDEX, not " + text;
    }
  };
  return app.add_option("--device", device, "cpu or cuda[:i]")->capture_default_str()->check(CLI::Validator(check, ""));
}

int wrong_usage(const std::string& message, const std::string& command) {
  std::fprintf(stderr, "error: %s; command line; see `twinlens%s%s --help`\n", message.c_str(), command.empty() ? "" : " ",
               command.c_str());
  return kWrongUsage;
}

}  // namespace twinlens::program

int main(int argc, char** argv) {
  using namespace twinlens::program;
  wait_briefly(argv);
  try {
    return run_program(argc, argv);
  } catch (const twinlens::UsageError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kWrongUsage;
  } catch (const twinlens::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    std::fprintf(stderr, "error: %s; %s; check the path and its permissions\n", error.code().message().c_str(), error.path1().c_str());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory; the whole process; lower --batch-size or --max-chunk\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s; unexpected; please report it with the command line\n", error.what());
  }
  return kFailure;
}
