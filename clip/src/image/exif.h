#pragma once
// EXIF orientation (CIPA DC-008, tag 0x0112) of an encoded picture.

#include <string_view>

#include "twinlens/clip/image.h"

namespace twinlens {

// 1 to 8; 1 (upright) for a file without the tag, with a value outside that range, or of another format than JPEG, PNG and WebP.
int exif_orientation(std::string_view file);

// The picture turned and mirrored as the orientation says, so that it stands upright.
Image upright(Image image, int orientation);

}  // namespace twinlens
