#include "tests/support/toy_data.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <zlib.h>

namespace twinlens::test {
namespace {

void append_u32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((value >> shift) & 0xFFU);
}

void append_chunk(std::string& out, const std::string& type, const std::string& data) {
  append_u32(out, static_cast<std::uint32_t>(data.size()));
  const std::string body = type + data;
  out += body;
  append_u32(out, static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()))));
}

struct Colour {
  const char* name;
  std::array<int, 3> rgb;
};
constexpr std::array<Colour, 6> kColours = {{{"red", {220, 40, 40}},
                                             {"green", {40, 200, 60}},
                                             {"blue", {50, 60, 220}},
                                             {"yellow", {230, 220, 60}},
                                             {"black", {20, 20, 20}},
                                             {"white", {240, 240, 240}}}};
constexpr std::array<const char*, 3> kShapes = {"square", "disc", "stripe"};

bool inside(int shape, int x, int y, int size) {
  const int dx = x - size / 2, dy = y - size / 2;
  if (shape == 0) return std::abs(dx) < size / 4 && std::abs(dy) < size / 4;
  if (shape == 1) return dx * dx + dy * dy < size * size / 12;
  return std::abs(dx - dy) < size / 6;
}

std::string config(const std::string& vision) {
  return "{\"embed_dim\": 32, \"vision_cfg\": " + vision +
         ", \"text_cfg\": {\"context_length\": 24, \"vocab_size\": 1000, \"width\": 32, \"heads\": 2, \"layers\": 1}}\n";
}

}  // namespace

std::string encode_png(const std::vector<std::uint8_t>& rgb, int width, int height) {
  std::string rows;
  for (int y = 0; y < height; ++y) {
    rows += '\0';  // no filter
    rows.append(reinterpret_cast<const char*>(rgb.data()) + static_cast<std::size_t>(y) * width * 3, static_cast<std::size_t>(width) * 3);
  }
  uLongf packed_size = compressBound(static_cast<uLong>(rows.size()));
  std::string packed(packed_size, '\0');
  if (compress2(reinterpret_cast<Bytef*>(packed.data()), &packed_size, reinterpret_cast<const Bytef*>(rows.data()),
                static_cast<uLong>(rows.size()), 9) != Z_OK)
    throw std::runtime_error("encode_png");
  packed.resize(packed_size);
  std::string header;
  append_u32(header, static_cast<std::uint32_t>(width));
  append_u32(header, static_cast<std::uint32_t>(height));
  header += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits, RGB
  std::string out = "\x89PNG\r\n\x1A\n";
  append_chunk(out, "IHDR", header);
  append_chunk(out, "IDAT", packed);
  append_chunk(out, "IEND", "");
  return out;
}

std::vector<ToyPair> toy_pairs(int count, int size) {
  std::vector<ToyPair> out;
  for (int i = 0; i < count; ++i) {
    const int side = size + i % 2 * 7, shape = i % 3;
    const Colour& front = kColours[static_cast<std::size_t>(i % 6)];
    const Colour& back = kColours[static_cast<std::size_t>((i + 1 + i / 6 % 5) % 6)];
    std::vector<std::uint8_t> rgb;
    std::uint32_t noise = static_cast<std::uint32_t>(i) * 2654435761U + 1U;
    for (int y = 0; y < side; ++y) {
      for (int x = 0; x < side; ++x) {
        noise = noise * 1664525U + 1013904223U;
        const Colour& colour = inside(shape, x, y, side) ? front : back;
        for (const int value : colour.rgb) rgb.push_back(static_cast<std::uint8_t>(value + static_cast<int>(noise >> 28U) - 8));
      }
    }
    const std::string number = std::to_string(i);
    out.push_back(
        {(number.size() < 2 ? "0" : "") + number, encode_png(rgb, side, side),
         std::string("a ") + front.name + " " + kShapes[static_cast<std::size_t>(shape)] + " on " + back.name + ", number " + number});
  }
  return out;
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file) throw std::runtime_error("cannot write " + path);
}

void write_toy_folder(const std::string& folder, const std::vector<ToyPair>& pairs) {
  std::filesystem::create_directories(folder);
  for (const ToyPair& pair : pairs) {
    write_text(folder + "/" + pair.name + ".png", pair.png);
    write_text(folder + "/" + pair.name + ".txt", pair.caption + "\n");
  }
}

std::string toy_vit_json() { return config(R"({"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16})"); }

std::string toy_resnet_json() { return config(R"({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32})"); }

}  // namespace twinlens::test
