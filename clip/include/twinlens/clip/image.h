#pragma once
// Pictures: decoding, Pillow-exact resizing, and the evaluation transform. A picture is RGB in 8 bits, rows from the top, dense.
//
// Decoding has one meaning for every format: palette and gray become RGB (black for colours that a palette of PNG or BMP lacks), 16-bit
// channels keep their high byte, other ranges than 0..255 are scaled to it, CMYK is converted, and whatever has transparency is composited
// on white, (c * a + 255 * (255 - a) + 127) / 255 in integers. EXIF orientation is applied only when asked for: CLIP models were trained
// without it. Animations give their first frame.
//
// All functions are pure and may be called from any thread. Errors about a file are FileError and name `source`.

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace twinlens {

struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  // (height, width, 3)
  // Of a picture that was decoded at a smaller scale (DecodeOptions::least_scale): that scale, and the sizes at scale 1. The rows and
  // columns here are full_height and full_width times the scale, rounded up; what that has added is behind them, or, in a picture turned
  // upright, before: left and top.
  double scale = 1.0;
  std::int64_t full_width = 0, full_height = 0;
  float left = 0, top = 0;
};

struct DecodeOptions {
  // A picture whose header promises more is refused before anything is decoded; 0 for no limit.
  std::int64_t max_pixels = 25'000'000;
  bool exif_orientation = false;  // turn the picture upright, as cameras and phones mark it
  // The fast mode: how much of a picture of so many columns and rows is needed, 1 for all of it. A JPEG is decoded at the smallest of 1/2,
  // 1/4 and 1/8 that is no less, if there is one; libjpeg then leaves out the finer frequencies of every block. Without libjpeg, and for
  // other formats, nothing changes. Not asked when empty.
  std::function<double(std::int64_t width, std::int64_t height)> least_scale = {};
};

// JPEG, PNG, WebP (when built with libwebp), BMP, GIF, PGM and PPM in bytes (P5, P6), TGA, PSD. `bytes` is a whole file. Throws FileError
// when the format is unknown, the data is damaged or cut off, or the picture is too large.
Image decode_image(std::string_view bytes, std::string_view source, const DecodeOptions& options = {});
// The same for a file. Throws FileError when it cannot be read.
Image read_image(const std::string& path, const DecodeOptions& options = {});
// The formats this build decodes, with the libraries that do it; for `info` and error messages.
std::string image_formats();

enum class Filter { bilinear, bicubic };

// Which axis is resized first; since bytes lie between, it shows in the last bit.
enum class PassOrder {
  pillow_13,   // the vertical one if the height shrinks and loses more than twice the pixels that the width loses; Pillow since 13
  horizontal,  // always the horizontal one; Pillow up to 12, with which OpenAI's and most published models were trained
};

// A region of a picture in pixels, not necessarily whole ones.
struct Box {
  float left = 0, top = 0, right = 0, bottom = 0;
};

// Pillow's Image.resize((width, height), filter): antialiased, byte for byte. With a box, only that region is resized, but the filter
// reads beyond it where the picture goes on. Throws ShapeError for empty sizes and for a box that does not lie in the picture.
Image resize(const Image& image, std::int64_t width, std::int64_t height, Filter filter, PassOrder order = PassOrder::pillow_13);
Image resize(const Image& image, std::int64_t width, std::int64_t height, Filter filter, const Box& box,
             PassOrder order = PassOrder::pillow_13);

// A rectangle of whole pixels.
struct Rect {
  std::int64_t left = 0, top = 0, width = 0, height = 0;
};
// crop(rect) and then resize to size x size: the filter sees nothing outside the rectangle. `mirror` flips the result left to right.
Image crop_and_resize(const Image& image, const Rect& rect, std::int64_t size, Filter filter, bool mirror,
                      PassOrder order = PassOrder::pillow_13);

enum class ResizeMode {
  shortest,  // short edge to the size (the long one cut to a whole number), centre crop: CLIP
  longest,   // long edge to the size, the rest filled: nothing is lost
  squash,    // both edges to the size, the aspect changes: SigLIP, CLIPA
};

// What a model sees when it is evaluated; the same as open_clip's transform for RGB pictures.
struct EvalTransform {
  std::int64_t size = 224;
  ResizeMode mode = ResizeMode::shortest;
  Filter filter = Filter::bicubic;
  std::uint8_t fill = 0;  // of `longest`
  PassOrder order = PassOrder::pillow_13;
};
// The picture at size x size. Of one decoded at a smaller scale the same part.
Image apply(const EvalTransform& transform, const Image& image);
// The scale at which a picture has as many pixels as the transform wants: DecodeOptions::least_scale.
double least_scale(const EvalTransform& transform, std::int64_t width, std::int64_t height);

inline constexpr std::array<float, 3> kClipMean = {0.48145466F, 0.4578275F, 0.40821073F};
inline constexpr std::array<float, 3> kClipStd = {0.26862954F, 0.26130258F, 0.27577711F};

// (3, height, width): (value / 255 - mean) / std. Training keeps bytes and normalises in the patch kernel; this is for `preprocess`.
std::vector<float> to_chw_float(const Image& image, const std::array<float, 3>& mean, const std::array<float, 3>& std);

}  // namespace twinlens
