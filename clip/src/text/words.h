#pragma once
// The word splitter of CLIP's tokenizer: an ordinary scanner in place of the regular expression
//   specials | 's | 't | 're | 've | 'm | 'll | 'd | letters+ | one number | (neither space, letter nor number)+    (ignoring case)

#include <string_view>
#include <vector>

namespace twinlens {

// Calls of `next` give the words of a cleaned (lower-case, valid UTF-8) text in order.
class WordScanner {
 public:
  // `specials` are strings that form a word by themselves; they must outlive the scanner.
  WordScanner(std::string_view text, const std::vector<std::string_view>& specials) : text_(text), specials_(specials) {}
  // False at the end of the text.
  bool next(std::string_view& word);

 private:
  std::size_t special_at(std::size_t i) const;
  std::size_t contraction_at(std::size_t i) const;

  std::string_view text_;
  const std::vector<std::string_view>& specials_;
  std::size_t at_ = 0;
};

}  // namespace twinlens
