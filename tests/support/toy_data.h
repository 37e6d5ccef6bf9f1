#pragma once
// Small pictures with captions, made by rule: the same bytes on every machine. And configurations of CLIPs that train in a moment.

#include <cstdint>
#include <string>
#include <vector>

namespace twinlens::test {

struct ToyPair {
  std::string name;     // "07", without extension
  std::string png;      // the bytes of the picture
  std::string caption;  // "a red square on blue, number 7"
};

// `count` different pairs of size x size pixels (a little more for every second, so that sizes differ).
std::vector<ToyPair> toy_pairs(int count, int size = 40);

// NAME.png and NAME.txt beside each other.
void write_toy_folder(const std::string& folder, const std::vector<ToyPair>& pairs);

// An 8-bit RGB picture as a PNG file.
std::string encode_png(const std::vector<std::uint8_t>& rgb, int width, int height);

// Writes a text file.
void write_text(const std::string& path, const std::string& text);

// open_clip model configurations with 32 x 32 pictures and a vocabulary of 1000.
std::string toy_vit_json();
std::string toy_resnet_json();

}  // namespace twinlens::test
