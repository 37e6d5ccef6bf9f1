// Checkpoints of others: layouts found out, configurations inferred, activations compared; conversion.

#include <array>
#include <catch2/catch.hpp>
#include <filesystem>

#include "clip/src/formats/hugging_face.h"
#include "clip/src/formats/infer_config.h"
#include "clip/src/formats/layout.h"
#include "clip/src/formats/torch_archive.h"
#include "clip/src/formats/weights.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

#include "twinlens/clip/embedding.h"
#include "twinlens/clip/pretrained.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

ModelConfig small_config(bool quick_gelu) {
  return parse_model_config(std::string(R"({"embed_dim":32,"quick_gelu":)") + (quick_gelu ? "true" : "false") +
                                R"(,"vision_cfg":{"image_size":16,"patch_size":4,"width":64,"layers":2},)"
                                R"("text_cfg":{"context_length":9,"vocab_size":50,"width":64,"heads":1,"layers":1}})",
                            "small");
}

std::vector<float> features(const Clip& model) {
  const NoGrad guard;
  std::vector<float> pixels;
  for (int i = 0; i < 16 * 16 * 3; ++i) pixels.push_back(static_cast<float>((i * 37) % 101) / 50.0F - 1.0F);
  std::vector<float> out = model.encode_image(from_vector(pixels, {1, 16, 16, 3})).to_vector();
  const std::vector<float> more = model.encode_text(batch_captions(model.config.text, {{48, 3, 7, 49}})).to_vector();
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

TEST_CASE("checkpoints: converted there and back, bit for bit, and the same features on the way") {
  const TemporaryFolder folder;
  for (const bool quick : {true, false}) {
    Clip model(small_config(quick), 3);
    save_model(model, folder / "a");
    const std::string original = read_file(folder / "a/open_clip_model.safetensors");
    const std::vector<float> expected = features(model);
    for (const Layout layout : {Layout::openai, Layout::hugging_face}) {
      INFO(name_of(layout));
      std::filesystem::remove_all(folder / "b");
      std::filesystem::remove_all(folder / "c");
      const Converted there = convert_model(folder / "a", layout, folder / "b");
      CHECK(there.notes.empty() == (quick || layout != Layout::openai));
      CHECK(find_source(folder / "b").layout == layout);
      CHECK(features(*load_model(folder / "b")) == expected);
      const Layout other = layout == Layout::openai ? Layout::hugging_face : Layout::openai;
      CHECK_THROWS_WITH(convert_model(folder / "b", other, folder / "b"),
                        Contains("the weights are read, and would be replaced; --output"));
      convert_model(folder / "b", Layout::open_clip, folder / "c");
      CHECK(read_file(folder / "c/open_clip_model.safetensors") == original);
      CHECK(features(*load_model(folder / "c")) == expected);
      CHECK(load_model(folder / "c")->config.quick_gelu == quick);
    }
  }
}

TEST_CASE("checkpoints: converted to torch's files and back, bit for bit") {
  const bool quick = GENERATE(true, false);
  const TemporaryFolder folder;
  Clip model(small_config(quick), 3);
  save_model(model, folder / "a");
  const std::string original = read_file(folder / "a/open_clip_model.safetensors");
  for (const Layout layout : {Layout::openai, Layout::open_clip, Layout::hugging_face}) {
    INFO(name_of(layout) << ", " << (quick ? "QuickGELU" : "GELU"));
    const TemporaryFolder there;
    const Converted to = convert_model(folder / "a", layout, there / "b", WeightFormat::torch);
    const std::string weights = to.files.back();
    CHECK(find_source(there / "b").layout == layout);
    CHECK(find_source(there / "b").weights == std::vector<std::string>{weights});
    convert_model(there / "b", Layout::open_clip, there / "c");
    CHECK(read_file(there / "c/open_clip_model.safetensors") == original);
    CHECK_FALSE(TorchArchive(weights).is_script());
    CHECK(features(*load_model(there / "b")) == features(model));
  }
}

TEST_CASE("checkpoints: half precision stays half precision") {
  const TemporaryFolder folder;
  Clip model(small_config(true), 3);
  StateDict weights = state_dict(collect(model));
  for (auto& [name, tensor] : weights) {
    if (tensor.rank() >= 2) tensor = tensor.detach().to(DType::f16);
  }
  weights["input_resolution"] = full({}, 16.0, DType::i64);
  weights["context_length"] = full({}, 9.0, DType::i64);
  weights["vocab_size"] = full({}, 50.0, DType::i64);
  write_safetensors(folder / "bare.safetensors", weights);
  const ModelSource source = find_source(folder / "bare.safetensors");
  CHECK(source.layout == Layout::openai);
  CHECK(source.config_inferred);
  CHECK(source.config.quick_gelu);
  convert_model(folder / "bare.safetensors", Layout::hugging_face, folder / "hf");
  convert_model(folder / "hf", Layout::openai, folder / "back");
  const StateDict back = read_safetensors(folder / "back/model.safetensors");
  REQUIRE(back.size() == weights.size());
  for (const auto& [name, tensor] : weights) {
    INFO(name);
    CHECK(back.at(name).dtype() == tensor.dtype());
    CHECK(back.at(name).to_vector() == tensor.to_vector());
  }
}

TEST_CASE("checkpoints: the configuration of bare weights") {
  const TemporaryFolder folder;
  const ModelConfig config = small_config(false);
  Clip model(config, 3);
  write_safetensors(folder / "bare.safetensors", state_dict(collect(model)));
  const ModelSource source = find_source(folder / "bare.safetensors");
  CHECK(source.layout == Layout::open_clip);
  CHECK(to_json(source.config) == to_json(config));
  CHECK_FALSE(source.quick_gelu.has_value());
  CHECK(features(*load_model(folder / "bare.safetensors")) == features(model));
  StateDict weights = state_dict(collect(model));
  weights.erase("ln_final.weight");
  write_safetensors(folder / "bare.safetensors", weights);
  CHECK_THROWS_WITH(load_model(folder / "bare.safetensors"), Contains("'ln_final.weight'"));
  // The large ones' heads do not show in shapes; they are known.
  for (const char* name : {"ViT-B-32", "RN50x4", "ViT-H-14", "ViT-bigG-14", "ViT-L-14-336", "ViT-L-14-CLIPA", "ViT-H-14-CLIPA-336"}) {
    INFO(name);
    const ModelConfig known = *builtin_model_config(name);
    TensorShapes shapes;
    if (known.vision.is_resnet()) {
      for (const std::string& parameter : parameter_names(known)) shapes[parameter] = {1};
      shapes["visual.layer1.0.conv1.weight"] = {known.vision.width, known.vision.width, 1, 1};
      shapes["visual.attnpool.positional_embedding"] = {known.vision.grid() * known.vision.grid() + 1, known.vision.width * 32};
    } else {
      for (const std::string& parameter : parameter_names(known)) shapes[parameter] = {1};
      shapes["visual.conv1.weight"] = {known.vision.width, 3, known.vision.patch_size, known.vision.patch_size};
      shapes["visual.positional_embedding"] = {known.vision.tokens(), known.vision.width};
      shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"] = {static_cast<int>(known.vision.width * known.vision.mlp_ratio),
                                                                  known.vision.width};
    }
    if (shapes.count("visual.conv1.weight") == 0) shapes["visual.conv1.weight"] = {1};
    shapes["ln_final.weight"] = {known.text.width};
    shapes["token_embedding.weight"] = {known.text.vocab_size, known.text.width};
    shapes["positional_embedding"] = {known.text.context_length, known.text.width};
    shapes["transformer.resblocks.0.mlp.c_fc.weight"] = {4 * known.text.width, known.text.width};
    shapes["text_projection"] = {known.text.width, known.embed_dim};
    CHECK(to_json(infer_config(shapes, name)) == to_json(known));
  }
}

// Sizes of no built-in model, heads that are not of 64 columns, pictures prepared in another way.
ModelConfig config_of_other_heads() {
  ModelConfig c = small_config(false);
  c.vision.head_width = 16;
  c.text.heads = c.text.width / 16;
  c.preprocess.interpolation = "bilinear";
  return c;
}

TEST_CASE("checkpoints: a file of weights carries the configuration that its shapes do not show") {
  const TemporaryFolder folder;
  const ModelConfig config = config_of_other_heads();
  Clip model(config, 3);
  save_model(model, folder / "run");
  const std::string alone = folder / "alone.safetensors";
  std::filesystem::copy_file(folder / "run/open_clip_model.safetensors", alone);
  const ModelSource source = find_source(alone);
  CHECK(to_json(source.config) == to_json(config));
  CHECK(source.config_in_metadata);
  CHECK_FALSE(source.config_inferred);
  CHECK(source.guess.empty());
  CHECK(features(*load_model(alone)) == features(model));
  convert_model(alone, Layout::hugging_face, folder / "hf");
  std::filesystem::copy_file(folder / "hf/model.safetensors", folder / "alone_hf.safetensors");
  CHECK(features(*load_model(folder / "alone_hf.safetensors")) == features(model));
  // Without it heads are guessed, and that is said; of a built-in model's sizes they are known.
  write_safetensors(folder / "bare.safetensors", state_dict(collect(model)));
  CHECK_THAT(find_source(folder / "bare.safetensors").guess, Contains("heads of 64 columns") && Contains("open_clip_config.json"));
  const Converted guessed = convert_model(folder / "bare.safetensors", Layout::open_clip, folder / "guessed");
  REQUIRE(guessed.notes.size() == 1);
  CHECK_THAT(guessed.notes[0], Contains("heads of 64 columns"));
}

TEST_CASE("checkpoints: weights of another number of heads are refused, and OpenAI's layout says that it has none but its own") {
  const TemporaryFolder folder;
  Clip model(config_of_other_heads(), 3), other(small_config(false), 3);
  save_model(model, folder / "run");
  CHECK_THROWS_WITH(load_weights(other, folder / "run"),
                    Contains("heads mismatch: the image tower of the weights has 4 heads") && Contains("open_clip_model.safetensors"));
  const Converted converted = convert_model(folder / "run", Layout::openai, folder / "openai");
  REQUIRE(converted.notes.size() == 2);
  CHECK_THAT(converted.notes[1], Contains("heads of 64 columns"));
  CHECK(features(*load_model(folder / "openai")) == features(model));
}

TEST_CASE("checkpoints: a model is not converted into the folder of another") {
  const TemporaryFolder folder;
  Clip model(small_config(true), 3);
  save_model(model, folder / "run");
  CHECK_THROWS_WITH(convert_model(folder / "run", Layout::hugging_face, folder / "run"),
                    Contains("open_clip_model.safetensors; name another folder with --output"));
  convert_model(folder / "run", Layout::hugging_face, folder / "hf");
  CHECK_THROWS_WITH(convert_model(folder / "run", Layout::hugging_face, folder / "hf", WeightFormat::torch),
                    Contains("the folder holds weights already") && Contains("model.safetensors"));
  CHECK_FALSE(std::filesystem::exists(folder / "hf/pytorch_model.bin"));
  CHECK_NOTHROW(convert_model(folder / "run", Layout::hugging_face, folder / "hf"));  // the same again
}

TEST_CASE("checkpoints: towers whose pooling does not show in bare weights need a configuration") {
  const TemporaryFolder folder;
  const std::string bare = folder / "bare.safetensors";
  ModelConfig averages = small_config(false), biased = small_config(false);
  averages.vision.no_ln_pre = true;
  averages.vision.pool_type = "avg";
  biased.text.proj_bias = true;
  biased.text.no_causal_mask = true;
  for (const ModelConfig& config : {averages, biased}) {
    Clip model(config, 3), other(config, 4);
    write_safetensors(bare, state_dict(collect(model)));
    CHECK_THROWS_WITH(load_model(bare), Contains("is not in the weights") && Contains("open_clip_config.json"));
    CHECK_THROWS_AS(convert_model(bare, Layout::open_clip, folder / "b"), ConfigError);
    load_weights(other, bare);
    CHECK(features(other) == features(model));
  }
}

TEST_CASE("checkpoints: an activation that the weights were not trained with is named") {
  const TemporaryFolder folder;
  Clip quick(small_config(true), 3), plain(small_config(false), 3);
  save_model(quick, folder / "quick");
  CHECK_THROWS_WITH(load_weights(plain, folder / "quick"),
                    Contains("activation mismatch") && Contains("QuickGELU") && Contains("-quickgelu"));
  CHECK_NOTHROW(load_weights(quick, folder / "quick"));
  save_model(plain, folder / "plain");
  CHECK_THROWS_WITH(load_weights(quick, folder / "plain"), Contains("activation mismatch") && Contains("computes QuickGELU"));
  convert_model(folder / "quick", Layout::hugging_face, folder / "hf");
  CHECK_THROWS_WITH(load_weights(plain, folder / "hf"), Contains("activation mismatch"));
  // OpenAI's extra tensors say it without a config; so do known names.
  StateDict weights = state_dict(collect(quick));
  weights["input_resolution"] = full({}, 16.0, DType::i64);
  write_safetensors(folder / "openai.safetensors", weights);
  CHECK_THROWS_WITH(load_weights(plain, folder / "openai.safetensors"), Contains("OpenAI"));
  // ... also against a config beside them
  std::filesystem::create_directories(folder / "wrong");
  write_safetensors(folder / "wrong/model.safetensors", weights);
  atomic_write(folder / "wrong/open_clip_config.json", to_json(small_config(false)));
  CHECK_THROWS_WITH(load_model(folder / "wrong"), Contains("activation mismatch") && Contains("OpenAI"));
  weights.erase("input_resolution");
  write_safetensors(folder / "vit_b_32-quickgelu-laion400m_e32.safetensors", weights);
  CHECK_THROWS_WITH(load_weights(plain, folder / "vit_b_32-quickgelu-laion400m_e32.safetensors"), Contains("its name says so"));
  write_safetensors(folder / "unknown.safetensors", weights);
  CHECK_NOTHROW(load_weights(plain, folder / "unknown.safetensors"));
}

TEST_CASE("checkpoints: another image size and context length resize the positions") {
  const TemporaryFolder folder;
  Clip model(small_config(false), 3);
  save_model(model, folder / "a");
  ModelConfig larger = small_config(false);
  larger.vision.image_size = 24;
  larger.text.context_length = 12;
  Clip other(larger, 4);
  load_weights(other, folder / "a");
  const StateDict weights = state_dict(collect(other));
  CHECK(weights.at("visual.positional_embedding").shape() == Shape{37, 64});
  CHECK(weights.at("positional_embedding").shape() == Shape{12, 64});
  const std::vector<float> before = state_dict(collect(model)).at("visual.positional_embedding").to_vector(),
                           after = weights.at("visual.positional_embedding").to_vector();
  CHECK(std::equal(before.begin(), before.begin() + 64, after.begin()));  // the class token's
}

TEST_CASE("checkpoints: shards named by an index; names that lead elsewhere are refused") {
  const TemporaryFolder folder;
  Clip model(small_config(true), 3);
  save_model(model, folder / "a");
  convert_model(folder / "a", Layout::hugging_face, folder / "b");
  const StateDict all = read_safetensors(folder / "b/model.safetensors");
  std::filesystem::remove(folder / "b/model.safetensors");
  StateDict halves[2];
  std::string map;
  int i = 0;
  for (const auto& [name, tensor] : all) {
    halves[i % 2][name] = tensor;
    map += (map.empty() ? "" : ",") + std::string("\"") + name + "\":\"part" + std::to_string(i++ % 2) + ".safetensors\"";
  }
  for (int k = 0; k < 2; ++k) write_safetensors(folder / ("b/part" + std::to_string(k) + ".safetensors"), halves[k]);
  atomic_write(folder / "b/model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  CHECK(features(*load_model(folder / "b")) == features(model));
  atomic_write(folder / "b/model.safetensors.index.json", R"({"weight_map":{"x":"../a/open_clip_model.safetensors"}})");
  CHECK_THROWS_WITH(load_model(folder / "b"), Contains("does not lie beside it"));
}

TEST_CASE("checkpoints: how pictures are prepared is carried over, or refused by name") {
  const auto with = [](const std::string& preprocess, const std::string& text = "") {
    return parse_model_config(R"({"model_cfg":{"embed_dim":32,"vision_cfg":{"image_size":16,"patch_size":4,"width":64,"layers":2},)"
                              R"("text_cfg":{"context_length":9,"vocab_size":50,"width":64,"heads":1,"layers":1)" +
                                  text + R"(}},"preprocess_cfg":{)" + preprocess + "}}",
                              "here");
  };
  for (const std::string key : {"mean", "std"}) {
    for (const std::string value : {"[0.5,0.5,0.5,0.5]", "[0.5,0.5]", "0.5"}) {
      CHECK_THROWS_WITH(with("\"" + key + "\":" + value), Contains("'" + key + "' = " + value + " is not 3 numbers"));
    }
  }
  CHECK_THROWS_WITH(with(R"("mode":"RGBA")"), Contains("'mode'"));
  CHECK_THROWS_WITH(with(R"("fill_color":256)"), Contains("preprocess_cfg.fill_color = 256"));
  CHECK_THROWS_WITH(with(R"("fill_color":[0,0,0])"), Contains("'fill_color'"));
  const ModelConfig filled = with(R"("mode":"RGB","size":16,"resize_mode":"longest","fill_color":114)");
  CHECK(eval_transform_of(filled).fill == 114);
  CHECK(parse_model_config(to_json(filled), "again").preprocess.fill_color == 114);
  const TemporaryFolder folder;
  Clip model(filled, 3);
  save_model(model, folder / "a");
  CHECK_THROWS_WITH(convert_model(folder / "a", Layout::hugging_face, folder / "b"), Contains("longest side"));
  CHECK(folder.names() == std::vector<std::string>{"a"});

  CHECK_THROWS_WITH(with("", R"(,"pool_type":"eos","eos_id":50)"), Contains("text_cfg.eos_id = 50") && Contains("vocab_size is 50"));
  CHECK_THROWS_WITH(with("", R"(,"pool_type":"eos","eos_id":-1)"), Contains("text_cfg.eos_id = -1"));
  CHECK_THROWS_WITH(with("", R"(,"pad_id":50)"), Contains("text_cfg.pad_id = 50"));
  CHECK(with("", R"(,"pool_type":"eos","eos_id":49,"pad_id":49)").text.eos_id == 49);
}

TEST_CASE("checkpoints: Hugging Face's picture processing is carried over, or refused by name") {
  const auto read = [](const std::string& json) {
    ModelConfig out = small_config(true);  // of 16 x 16 pixels
    parse_hugging_face_preprocess(json, "here", out);
    return out.preprocess;
  };
  const PreprocessConfig raw = read(R"({"do_normalize":false,"image_mean":[0.1,0.2,0.3],"image_std":[0.4,0.5,0.6]})");
  CHECK(raw.mean == std::array<float, 3>{0.0F, 0.0F, 0.0F});
  CHECK(raw.std == std::array<float, 3>{1.0F, 1.0F, 1.0F});
  CHECK(read(R"({"do_normalize":true,"image_mean":[0.1,0.2,0.3]})").mean == std::array<float, 3>{0.1F, 0.2F, 0.3F});
  CHECK(read(R"({"do_rescale":true,"rescale_factor":0.00392156862745098})").resize_mode == "shortest");
  CHECK_THROWS_WITH(read(R"({"image_std":[0.1,0.2,0.3,0.4]})"), Contains("'image_std' is not 3 numbers"));
  CHECK_THROWS_WITH(read(R"({"size":{"longest_edge":16}})"), Contains("longest side"));
  CHECK(read(R"({"size":16,"crop_size":16,"do_center_crop":true})").resize_mode == "shortest");
  CHECK(read(R"({"size":{"shortest_edge":16},"do_center_crop":true})").resize_mode == "shortest");
  CHECK(read(R"({"size":{"height":16,"width":16}})").resize_mode == "squash");
  // Resized to both sides before the crop, which then leaves nothing out.
  CHECK(read(R"({"size":{"height":16,"width":16},"do_center_crop":true,"crop_size":{"height":16,"width":16}})").resize_mode == "squash");
  for (const char* size : {"18", R"({"shortest_edge":18})", R"({"height":16,"width":18})"}) {
    CHECK_THROWS_WITH(read(std::string(R"({"do_center_crop":true,"crop_size":16,"size":)") + size + "}"),
                      Contains("resized to 18 for a model of 16"));
  }
  CHECK_THROWS_WITH(read(R"({"do_rescale":false})"), Contains("divided by 255"));
  CHECK_THROWS_WITH(read(R"({"rescale_factor":1.0})"), Contains("divided by 255"));
  CHECK_THROWS_WITH(read(R"({"do_resize":false})"), Contains("not resized"));
}

TEST_CASE("checkpoints: a tokenizer that Hugging Face's config would not restore is not converted") {
  const auto refused = [](ModelConfig c, const std::string& name, const std::string& kwargs) {
    c.text.hf_tokenizer_name = name;
    c.text.tokenizer_kwargs = kwargs;
    CHECK_NOTHROW(check_writable(Layout::open_clip, c));
    CHECK_NOTHROW(layout_pieces(Layout::hugging_face, c));  // weights are read whatever a config of one's own says
    try {
      check_writable(Layout::hugging_face, c);
      return std::string();
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
  };
  const ModelConfig clip = small_config(true), siglip = *builtin_model_config("ViT-B-16-SigLIP");
  const std::string canonicalize = R"({"clean":"canonicalize"})";
  CHECK(refused(clip, "", "").empty());
  CHECK(refused(clip, "", R"({"clean":"lower"})").empty());
  CHECK_THAT(refused(clip, "", canonicalize),
             Contains("tokenizer_kwargs " + canonicalize + " in a CLIPModel") && Contains("--to open_clip"));
  CHECK_THAT(refused(clip, "", R"({"clean":"whitespace"})"), Contains("in a CLIPModel"));
  CHECK_THAT(refused(clip, "xlm-roberta-base", R"({"clean":"lower"})"), Contains("hf_tokenizer_name 'xlm-roberta-base' in a CLIPModel"));
  CHECK(refused(siglip, "timm/ViT-B-16-SigLIP", canonicalize).empty());
  ModelConfig gemma = siglip;
  gemma.text.vocab_size = 256000;
  CHECK_THAT(refused(gemma, "timm/ViT-B-16-SigLIP2", canonicalize), Contains("pad_id = 1 with Gemma's vocabulary"));
  CHECK_THAT(refused(siglip, "", canonicalize), Contains("CLIP's own tokenizer in a SiglipModel"));
  CHECK_THAT(refused(siglip, "timm/ViT-B-16-SigLIP", ""), Contains("without 'clean' in a SiglipModel"));
  CHECK_THAT(refused(siglip, "bert-base-uncased", R"({"clean":"canonicalize","strip_sep_token":true})"), Contains("in a SiglipModel"));
}

TEST_CASE("checkpoints: a small SigLIP as SiglipModel and back, with its padding") {
  ModelConfig config = parse_model_config(
      R"({"embed_dim":12,"custom_text":true,"init_logit_bias":-10,"vision_cfg":{"image_size":12,"patch_size":4,"width":12,"head_width":4,)"
      R"("layers":2,"timm_model_name":"vit_custom_patch4_siglip_12"},"text_cfg":{"context_length":9,"vocab_size":24,"width":12,"heads":3,)"
      R"("layers":2,"hf_tokenizer_name":"somebody/siglip","tokenizer_kwargs":{"clean":"canonicalize"},"no_causal_mask":true,)"
      R"("pool_type":"last","proj_bias":true}})",
      "small");
  Clip model(config, 1);
  const StateDict own = state_dict(collect(model));
  const std::vector<LayoutPiece> pieces = layout_pieces(Layout::hugging_face, config);
  const StateDict back = from_layout(pieces, to_layout(pieces, own));
  REQUIRE(back.size() == own.size());
  for (const auto& [name, tensor] : own) CHECK(back.at(name).to_vector() == tensor.to_vector());
  for (const int pad : {0, 1, 5}) {
    config.text.pad_id = pad;
    CHECK(parse_hugging_face_config(hugging_face_config(config), "here").text.pad_id == pad);
  }
  const auto pad_of = [](const std::string& text) {
    return parse_hugging_face_config(R"({"model_type":"siglip","text_config":{)" + text + "}}", "here").text.pad_id;
  };
  CHECK(pad_of("") == 1);
  CHECK(pad_of(R"("pad_token_id":0)") == 0);
  CHECK(pad_of(R"("vocab_size":256000,"pad_token_id":1)") == 0);  // the default that transformers writes; Gemma pads with 0
}

}  // namespace
}  // namespace twinlens::test
