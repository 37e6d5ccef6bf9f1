#pragma once
// Encoded pictures one after another, from files, folders and tars: for work on more of them than memory holds.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace twinlens {

class FolderWalk;

struct EncodedPicture {
  std::string name;    // path of the file, or "shard.tar:member"
  std::string bytes;   // of the file, whole
  bool named = false;  // it was given by its own path, not found in a folder or a tar
  // Not empty: why there are no bytes. Of a tar that is damaged, of which this is the rest and `name` its path; of a file in a format that
  // is not read, or that is none (a pipe); or of a folder that cannot be read, or is not followed.
  std::string damage = {};
};

// Goes through the sources in order. A folder is walked with all that lies beneath it, names in order of their bytes, links followed (but
// not around in a circle); a tar (.tar, .tar.gz, .tgz, .tar.zst, ...) is read from its front. There, files count whose names end like a
// picture's (.jpg .jpeg .jpe .jfif .png .webp .bmp .gif .ppm .pgm .pnm .tga .psd) and which are not hidden (.name, or in .folder/); a
// source that is a file itself always counts, but for the index of a shard (SHARD.twinlens-index). A tar that is damaged gives its pictures
// before the damage, then one entry that says so. Memory: one picture and the names in the folders on the way. One thread at a time.
class PictureStream {
 public:
  // Whether a file of this name counts in a folder: as a picture, or as a tar of them.
  static bool takes(const std::string& name);

  explicit PictureStream(std::vector<std::string> sources);
  ~PictureStream();
  PictureStream(const PictureStream&) = delete;
  PictureStream& operator=(const PictureStream&) = delete;

  // False at the end. Throws FileError for a source that does not exist or cannot be opened.
  bool next(EncodedPicture& picture);

 private:
  struct Tar;
  bool next_of_tar(EncodedPicture& picture);
  bool next_of_folder(EncodedPicture& picture);

  std::vector<std::string> left_;  // the next one last
  std::unique_ptr<FolderWalk> folder_;
  std::unique_ptr<Tar> tar_;  // a source, or in the folder
};

}  // namespace twinlens
