#pragma once
// Features of more pictures, or lines of text, than memory holds: batch by batch.

#include <functional>
#include <istream>
#include <string>
#include <vector>

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/picture_stream.h"

namespace twinlens {

// What is done with a batch: features (n, E) f32 on the CPU, in the order of the stream, and the names of the rows. False stops.
using TakeFeatures = std::function<bool(const Tensor& features, const std::vector<std::string>& names)>;

// Embeds all that the stream gives. What cannot be used goes to `skip`: a picture that was found in a folder or a tar, the rest of a tar
// that is damaged, a picture whose name has a line break, since names are listed a line each. A picture that was given by its own path is
// a FileError. Memory is that of options.batch_size pictures.
void embed_stream(const Clip& model, PictureStream& pictures, const EmbedOptions& options, const TakeFeatures& take,
                  const std::function<void(const SkippedSample&)>& skip);

// The same for lines of text, empty ones left out; the names are the lines. One that is not in UTF-8 is a FileError that names it as a line
// of `name`.
void embed_lines(const Clip& model, const Tokenizer& tokenizer, std::istream& lines, const std::string& name, const EmbedOptions& options,
                 const TakeFeatures& take);

}  // namespace twinlens
