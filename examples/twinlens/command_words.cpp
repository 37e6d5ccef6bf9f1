#include "examples/twinlens/command_words.h"

#include <algorithm>

namespace twinlens::program {
namespace {

// The flag that a word is, if it is one of `app`.
const CLI::Option* flag_of(const CLI::App& app, const std::string& word) {
  return word.starts_with("--") && word.size() > 2 ? app.get_option_no_throw(word.substr(0, word.find('='))) : nullptr;
}

bool takes_value(const CLI::Option* flag) { return flag != nullptr && flag->get_items_expected_max() > 0; }

bool is_list_of_text(const CLI::Option* option) { return option->get_allow_extra_args() && option->get_type_name().starts_with("TEXT"); }

}  // namespace

std::string missing_value(const CLI::App& app, const std::vector<std::string>& words) {
  for (std::size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
    const CLI::Option* const flag = flag_of(app, words[i]);
    if (!takes_value(flag)) continue;
    const std::size_t equals = words[i].find('=');
    const std::string name = words[i].substr(0, equals);
    if (equals != std::string::npos) {
      if (equals + 1 == words[i].size()) return name + " needs a value, and there is none behind its =";
      continue;
    }
    if (++i < words.size() && flag_of(app, words[i]) != nullptr) {
      return name + " needs a value, and " + words[i] + " is a flag (" + name + "=" + words[i] + " would take it for the value)";
    }
    // (Of others it is as good as none: scripts write --resume "$RESUME".)
    if (i < words.size() && words[i].empty() && flag->get_required()) return name + " needs a value, and the one given is empty";
  }
  return {};
}

void keep_brackets(const CLI::App& app, std::vector<std::string>& words) {
  const std::vector<const CLI::Option*> options = app.get_options();
  const bool has_list = std::any_of(options.begin(), options.end(),
                                    [](const CLI::Option* option) { return option->get_positional() && is_list_of_text(option); });
  bool is_path = has_list, only_paths = false;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (const CLI::Option* const flag = only_paths ? nullptr : flag_of(app, words[i]); flag != nullptr) {
      const bool is_list = is_list_of_text(flag);
      if (takes_value(flag) && !is_list && words[i].find('=') == std::string::npos) ++i;
      is_path = is_list || has_list;
    } else if (!only_paths && words[i] == "--") {
      only_paths = true;
      is_path = has_list;
    } else if (is_path && words[i].starts_with('[') && words[i].ends_with(']')) {
      words[i].insert(0, "./");
    }
  }
}

}  // namespace twinlens::program
