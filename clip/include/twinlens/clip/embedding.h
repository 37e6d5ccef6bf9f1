#pragma once
// Pictures and texts to features, a bounded number at a time.

#include <atomic>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "twinlens/clip/dataset.h"
#include "twinlens/clip/image.h"
#include "twinlens/clip/model.h"
#include "twinlens/clip/tokenizer.h"

namespace twinlens {

// What was asked for is given up because somebody wants the program to end.
struct Stopped : std::exception {
  const char* what() const noexcept override { return "stopped"; }
};

struct EmbedOptions {
  int batch_size = 64;
  bool normalize = true;  // to unit length
  std::int64_t max_image_pixels = 25'000'000;
  bool exif_orientation = false;
  bool fast_decode = false;                 // DecodeOptions::least_scale
  bool device_transforms = false;           // crop and resize on the model's device, a card
  bool each_sample = false;                 // embed_dataset(): no two samples are one picture
  const std::atomic<bool>* stop = nullptr;  // embed_dataset() throws Stopped soon after it becomes true
  Context context;
};

// What a model sees of a picture when it is evaluated.
EvalTransform eval_transform_of(const ModelConfig& config);

// How pictures for a transform are decoded.
DecodeOptions decode_options(const EmbedOptions& options, const EvalTransform& transform);

// The tokenizer a model was made for, with the cleaning that open_clip gives it (ftfy, unless the configuration says otherwise). `model` is
// what --model named: files of the tokenizer are looked for in that folder, or beside that file (tokenizer_files.h).
std::shared_ptr<const Tokenizer> tokenizer_of(const ModelConfig& config, const std::string& model = {});

// (N, E) f32 on the CPU. Throws ShapeError when there is no text.
Tensor embed_texts(const Clip& model, const Tokenizer& tokenizer, const std::vector<std::string>& texts, const EmbedOptions& options = {});

// (N, E) f32 on the CPU. Throws ShapeError when there is no path, FileError for the first file that cannot be read.
Tensor embed_image_files(const Clip& model, const std::vector<std::string>& paths, const EmbedOptions& options = {});

// Encoded pictures as the model's input, (n, S, S, 3) u8, through the evaluation transform; on the model's device with device_transforms,
// to the byte as on the CPU, else on the CPU. Those that cannot be used go to `skipped`; kept[k] is the index of row k.
struct LoadedPictures {
  Tensor pixels;
  std::vector<std::int64_t> kept;
  std::vector<SkippedSample> skipped;
};
LoadedPictures load_pictures(const Clip& model, const std::vector<std::string>& bytes, const std::vector<std::string>& names,
                             const EmbedOptions& options);

// (n, E) f32 on the CPU. pixels (n, S, S, 3) on any device: u8, as of load_pictures, or f32 that is normalised already.
Tensor embed_pictures(const Clip& model, const Tensor& pixels, const EmbedOptions& options);

}  // namespace twinlens
