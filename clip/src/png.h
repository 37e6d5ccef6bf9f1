#pragma once
// PNG files in memory, for the report.

#include <string>

#include "twinlens/clip/image.h"

namespace twinlens {

// "data:image/png;base64,..."
std::string png_data_uri(const Image& image);

}  // namespace twinlens
