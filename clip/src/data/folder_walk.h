#pragma once
// The one way through a folder and all that lies beneath it, for training data and for pictures to embed alike.

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace twinlens {

struct WalkedFile {
  std::string path;        // begins with the root, as that was given
  std::string problem;     // not empty: why it, or the folder of this name, is left out
  bool is_folder = false;  // one that is left out
  bool by_rule = false;    // it is left out by a rule, and nothing is wrong with it
};

// Pictures (of formats that are not read, too, with that as their problem), tars and .txt files, in the order of the bytes of their names,
// a folder's where its name stands. Links are followed, so that a folder may come several times, by several names. Not followed are a link
// to a folder that lies around it, which would never end, and, of the links within a linked folder, further ones to the same place: folders
// with links to each other would come in every order. What is hidden is not looked at (but told of), and what macOS keeps beside files is
// passed over. Memory: the names in the folders on the way.
class FolderWalk {
 public:
  // Throws FileError when the folder itself cannot be read; others are left out.
  explicit FolderWalk(const std::string& root);
  // False at the end.
  bool next(WalkedFile& file);

 private:
  using Identity = std::pair<std::uint64_t, std::uint64_t>;  // device, inode
  struct Entry {
    WalkedFile file;
    bool is_link = false;
  };
  struct Level {
    Identity folder;
    std::vector<Entry> left;  // the next one last
  };
  void enter(WalkedFile& folder, bool is_link);
  bool may_follow(const Identity& target, WalkedFile& link);

  std::vector<Level> levels_;
  std::size_t linked_ = 0;     // levels down to the outermost link on the way; 0: none
  std::set<Identity> led_to_;  // by links from there on
};

}  // namespace twinlens
