#include <csetjmp>
#include <cstdio>
// jpeglib.h needs <cstdio> before it.
#include <jerror.h>
#include <jpeglib.h>

#include "clip/src/image/decoders.h"

namespace twinlens {
namespace {

// libjpeg reports errors by a call that must not return; exceptions must not cross its frames, so it jumps.
struct ErrorExit {
  jpeg_error_mgr manager;
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
};

void on_error(j_common_ptr info) {
  auto* exit = reinterpret_cast<ErrorExit*>(info->err);
  info->err->format_message(info, exit->text);
  std::longjmp(exit->jump, 1);
}

// libjpeg fills the rest of a cut-off picture with gray and only warns; half a picture is no training example.
void on_message(j_common_ptr info, int level) {
  if (level < 0 && (info->err->msg_code == JWRN_JPEG_EOF || info->err->msg_code == JWRN_HIT_MARKER)) on_error(info);
}

struct Decompressor {
  jpeg_decompress_struct info{};
  ErrorExit error{};
  Decompressor() {
    info.err = jpeg_std_error(&error.manager);
    error.manager.error_exit = on_error;
    error.manager.emit_message = on_message;
    jpeg_create_decompress(&info);
  }
  ~Decompressor() { jpeg_destroy_decompress(&info); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;
};

// The two steps hold no object with a destructor while libjpeg may jump.
bool read_header(Decompressor& d, std::string_view bytes) {
  if (setjmp(d.error.jump) != 0) return false;
  jpeg_mem_src(&d.info, reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&d.info, TRUE);
  const bool cmyk = d.info.jpeg_color_space == JCS_CMYK || d.info.jpeg_color_space == JCS_YCCK;
  d.info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  return true;
}
// The largest shrinking by 2, 4 or 8 that leaves `least` of the picture. (The scales between have no vector code in libjpeg-turbo and take
// longer than the whole picture.)
void choose_scale(Decompressor& d, double least) {
  unsigned shrink = 1;
  while (shrink < 8 && 0.5 / shrink >= least) shrink *= 2;
  d.info.scale_num = 1;
  d.info.scale_denom = shrink;
}
bool find_size(Decompressor& d) {
  if (setjmp(d.error.jump) != 0) return false;
  jpeg_calc_output_dimensions(&d.info);
  return true;
}
bool read_rows(Decompressor& d, std::uint8_t* out, std::size_t row_bytes) {
  if (setjmp(d.error.jump) != 0) return false;
  jpeg_start_decompress(&d.info);
  while (d.info.output_scanline < d.info.output_height) {
    JSAMPROW row = out + d.info.output_scanline * row_bytes;
    jpeg_read_scanlines(&d.info, &row, 1);
  }
  jpeg_finish_decompress(&d.info);
  return true;
}

// 255 is no ink, as Adobe writes it; Pillow takes all files so.
std::vector<std::uint8_t> cmyk_to_rgb(const std::vector<std::uint8_t>& cmyk) {
  std::vector<std::uint8_t> rgb(cmyk.size() / 4 * 3);
  for (std::size_t i = 0; i < cmyk.size() / 4; ++i) {
    const auto light = [&](std::size_t c) { return static_cast<std::uint32_t>(cmyk[i * 4 + c]); };
    for (std::size_t c = 0; c < 3; ++c) rgb[i * 3 + c] = static_cast<std::uint8_t>((light(c) * light(3) + 127) / 255);
  }
  return rgb;
}

}  // namespace

Image decode_jpeg(std::string_view bytes, std::string_view source, const DecodeOptions& options) {
  Decompressor d;
  if (!read_header(d, bytes)) throw_damaged("JPEG", d.error.text, source);
  check_size(d.info.image_width, d.info.image_height, source, options);
  const bool cmyk = d.info.out_color_space == JCS_CMYK;
  if (options.least_scale) choose_scale(d, options.least_scale(d.info.image_width, d.info.image_height));
  if (!find_size(d)) throw_damaged("JPEG", d.error.text, source);
  const std::size_t row_bytes = d.info.output_width * (cmyk ? std::size_t{4} : std::size_t{3});
  Image image{d.info.output_width, d.info.output_height, std::vector<std::uint8_t>(row_bytes * d.info.output_height)};
  if (d.info.scale_denom > 1) {
    image.scale = 1.0 / d.info.scale_denom;
    image.full_width = d.info.image_width;
    image.full_height = d.info.image_height;
  }
  if (!read_rows(d, image.rgb.data(), row_bytes)) throw_damaged("JPEG", d.error.text, source);
  if (cmyk) image.rgb = cmyk_to_rgb(image.rgb);
  return image;
}

}  // namespace twinlens
