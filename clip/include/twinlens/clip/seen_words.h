#pragma once
// Which words training captions use: what a model can know of a caption, and what it must do without.
//
// A word is a run of letters and digits of the text in lower case; every byte outside ASCII counts as a letter.

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace twinlens {

std::vector<std::string> words_of(std::string_view text);

class SeenWords {
 public:
  void add(std::string_view caption);
  // Every word of the caption has been added; a caption without words has been seen.
  bool contains_all_of(std::string_view caption) const;
  std::size_t size() const { return words_.size(); }

 private:
  std::unordered_set<std::string> words_;
};

}  // namespace twinlens
