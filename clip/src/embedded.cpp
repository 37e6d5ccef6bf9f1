#include "clip/src/embedded.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <zlib.h>

#include "twinlens/kernels/error.h"

// The assembler includes the files: no generated source of several megabytes, nothing to compile. TWINLENS_CLIP_DATA is the folder
// clip/data, given by clip/CMakeLists.txt. GNU as syntax, which GCC and Clang both take. Symbols of Mach-O would need an underscore; the
// names are therefore spelled out for the compiler with asm labels.
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "twinlens_embedded_bpe: .incbin \"" TWINLENS_CLIP_DATA
    "/bpe_simple_vocab_16e6.txt.gz\"\n"
    "twinlens_embedded_html: .incbin \"" TWINLENS_CLIP_DATA
    "/html_entities.txt\"\n"
    "twinlens_embedded_mojibake: .incbin \"" TWINLENS_CLIP_DATA
    "/mojibake.txt\"\n"
    "twinlens_embedded_openai: .incbin \"" TWINLENS_CLIP_DATA
    "/templates/openai.txt\"\n"
    "twinlens_embedded_simple: .incbin \"" TWINLENS_CLIP_DATA
    "/templates/simple.txt\"\n"
    "twinlens_embedded_end: .byte 0\n"
    ".globl twinlens_embedded_bpe, twinlens_embedded_html, twinlens_embedded_mojibake, twinlens_embedded_openai\n"
    ".globl twinlens_embedded_simple, twinlens_embedded_end\n"
    ".hidden twinlens_embedded_bpe, twinlens_embedded_html, twinlens_embedded_mojibake, twinlens_embedded_openai\n"
    ".hidden twinlens_embedded_simple, twinlens_embedded_end\n"
    ".popsection\n");

extern "C" {
extern const char begin_bpe[] asm("twinlens_embedded_bpe");
extern const char begin_html[] asm("twinlens_embedded_html");
extern const char begin_mojibake[] asm("twinlens_embedded_mojibake");
extern const char begin_openai[] asm("twinlens_embedded_openai");
extern const char begin_simple[] asm("twinlens_embedded_simple");
extern const char end_of_data[] asm("twinlens_embedded_end");
}

namespace twinlens {

std::string_view embedded(Embedded file) {
  const auto between = [](const char* begin, const char* end) { return std::string_view(begin, static_cast<std::size_t>(end - begin)); };
  switch (file) {
    case Embedded::bpe_vocabulary_gz: return between(begin_bpe, begin_html);
    case Embedded::html_entities: return between(begin_html, begin_mojibake);
    case Embedded::mojibake: return between(begin_mojibake, begin_openai);
    case Embedded::templates_openai: return between(begin_openai, begin_simple);
    case Embedded::templates_simple: return between(begin_simple, end_of_data);
  }
  return {};
}

std::string gunzip(std::string_view packed, std::string_view what) {
  return gunzip_lines(packed, std::numeric_limits<std::int64_t>::max(), what);
}

std::string gunzip_lines(std::string_view packed, std::int64_t lines, std::string_view what) {
  z_stream stream{};
  // 15 window bits, +32: accept a gzip or a zlib header.
  if (inflateInit2(&stream, 15 + 32) != Z_OK) throw Error("cannot start zlib; " + std::string(what) + "; free some memory");
  const auto close = [](z_stream* s) { inflateEnd(s); };
  const std::unique_ptr<z_stream, decltype(close)> closer(&stream, close);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out, piece(std::size_t{1} << 17, '\0');
  int status = Z_OK;
  while (status == Z_OK && lines > 0) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    status = inflate(&stream, Z_NO_FLUSH);
    const std::string_view part(piece.data(), piece.size() - stream.avail_out);
    out += part;
    lines -= std::count(part.begin(), part.end(), '\n');
    if (stream.avail_in == 0 && status == Z_OK && stream.avail_out != 0) break;  // truncated
  }
  if (status != Z_STREAM_END && lines > 0) {
    throw FileError("gzip data is damaged or cut off; " + std::string(what) + "; fetch the file again");
  }
  return out;
}

}  // namespace twinlens
