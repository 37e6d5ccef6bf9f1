#include "twinlens/clip/embed_stream.h"

#include <set>
#include <utility>

#include "twinlens/clip/text_encoding.h"
#include "twinlens/core/check.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

// Without a batch the stream would never come to its end.
void check_batch(const char* op, const EmbedOptions& options) { check(options.batch_size > 0, op, "needs a positive batch size"); }

}  // namespace

void embed_stream(const Clip& model, PictureStream& pictures, const EmbedOptions& options, const TakeFeatures& take,
                  const std::function<void(const SkippedSample&)>& skip) {
  check_batch("embed_stream", options);
  bool more = true;
  while (more) {
    std::vector<std::string> bytes, names;
    std::set<std::string> by_name;
    EncodedPicture picture;
    while (bytes.size() < static_cast<std::size_t>(options.batch_size) && (more = pictures.next(picture))) {
      if (picture.damage.empty() && picture.name.find_first_of("\r\n") != std::string::npos) {
        picture.damage = "its name has a line break, and lists have a name a line; rename it";
        if (picture.named) throw FileError("the picture cannot be listed; " + picture.name + "; " + picture.damage);
      }
      if (!picture.damage.empty()) {
        skip({picture.name, picture.damage});
        continue;
      }
      bytes.push_back(std::move(picture.bytes));
      names.push_back(picture.name);
      if (picture.named) by_name.insert(picture.name);
    }
    if (bytes.empty()) continue;
    const LoadedPictures loaded = load_pictures(model, bytes, names, options);
    for (const SkippedSample& s : loaded.skipped) {
      if (by_name.count(s.key) != 0)
        throw FileError(s.reason +
                        "; a picture that is named must have its row: mend it or do not name it, or give its folder, in which such "
                        "pictures are skipped");
      skip(s);
    }
    if (loaded.kept.empty()) continue;
    std::vector<std::string> kept;
    for (const std::int64_t k : loaded.kept) kept.push_back(names[static_cast<std::size_t>(k)]);
    if (!take(embed_pictures(model, loaded.pixels, options), kept)) return;
  }
}

void embed_lines(const Clip& model, const Tokenizer& tokenizer, std::istream& lines, const std::string& name, const EmbedOptions& options,
                 const TakeFeatures& take) {
  check_batch("embed_lines", options);
  std::vector<std::string> batch;
  std::string line;
  bool more = true;
  std::int64_t number = 0;
  while (more) {
    more = next_list_line(lines, name, number, line);
    if (more && !line.empty()) batch.push_back(line);
    if (batch.empty() || (more && batch.size() < static_cast<std::size_t>(options.batch_size))) continue;
    if (!take(embed_texts(model, tokenizer, batch, options), batch)) return;
    batch.clear();
  }
}

}  // namespace twinlens
