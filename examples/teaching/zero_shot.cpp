// Zero-shot classification: no classifier is trained, the names of the classes are the classifier.
//
//   zero_shot MODEL_FOLDER PICTURE CLASS...     e.g. zero_shot logs/quickstart/model cat.png cat dog "hot air balloon"
//
// MODEL_FOLDER holds open_clip_config.json and open_clip_model.safetensors, as training writes it and open_clip reads it. Without
// arguments a model with untrained weights is saved, loaded and asked about a red square: the way is the same, the answers mean nothing.

#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <numeric>
#include <twinlens/clip/pretrained.h>
#include <twinlens/clip/templates.h>
#include <twinlens/clip/zero_shot.h>
#include <twinlens/core/autograd.h>
#include <twinlens/core/file.h>

using namespace twinlens;

namespace {

// One probability a class.
std::vector<float> classify(const Clip& model, const std::string& picture, const std::vector<std::string>& classes) {
  const NoGrad guard;
  // "itap of a cat.", "a bad photo of the cat.", ...: a class is the mean direction of its sentences.
  const Tensor weights = zero_shot_classifier(model, *tokenizer_of(model.config), classes, load_templates("simple"));  // (C, E)
  const Tensor image = embed_image_files(model, {picture});                                                            // (1, E)
  const Tensor cosines = matmul(image, weights, {.transpose_b = true});                                                // (1, C)
  return softmax(affine(cosines, model.logit_scale_value(), 0.0)).to_vector();
}

// A folder with an untrained model in it, and a picture.
std::filesystem::path make_toy() {
  const std::filesystem::path folder = "zero_shot_toy";
  ModelConfig config;
  config.embed_dim = 32;
  config.vision = {.layers = {2}, .width = 64, .head_width = 16, .patch_size = 8, .image_size = 32};
  config.text = {.context_length = 24, .vocab_size = 1024, .width = 64, .heads = 4, .layers = 2};
  Clip model(config, 3);
  save_model(model, folder.string());
  std::string square = "P6 40 30 255\n";  // PNM: width, height, largest value, then red, green, blue of every pixel
  for (int i = 0; i < 40 * 30; ++i) square += {'\xDC', '\x1E', '\x1E'};
  atomic_write((folder / "square.ppm").string(), square);
  return folder;
}

int show(const std::string& folder, const std::string& picture, const std::vector<std::string>& classes) {
  const std::unique_ptr<Clip> model = load_model(folder);
  const std::vector<float> p = classify(*model, picture, classes);
  for (std::size_t i = 0; i < classes.size(); ++i) std::printf("%6.2f %%  %s\n", 100.0F * p[i], classes[i].c_str());
  const float total = std::accumulate(p.begin(), p.end(), 0.0F);
  std::printf("in all %.2f %%\n", 100.0F * total);
  return std::fabs(total - 1.0F) < 1e-5F ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc >= 4) return show(argv[1], argv[2], {argv + 3, argv + argc});
    if (argc > 1) {
      std::fprintf(stderr, "usage: zero_shot [MODEL_FOLDER PICTURE CLASS...]\n");
      return 2;
    }
    const std::filesystem::path folder = make_toy();
    const int status = show(folder.string(), (folder / "square.ppm").string(), {"red square", "blue circle", "cat"});
    std::filesystem::remove_all(folder);
    return status;
  } catch (const std::exception& error) {  // twinlens' errors say what, where and what to do
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
