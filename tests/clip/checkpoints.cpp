// Checkpoints of others: torch's archives whole, damaged and hostile; layouts found out, configurations inferred, activations compared;
// conversion.

#include <archive.h>
#include <archive_entry.h>
#include <catch2/catch.hpp>
#include <filesystem>
#include <random>

#include "clip/src/formats/infer_config.h"
#include "clip/src/formats/layout.h"
#include "clip/src/formats/pickle.h"
#include "clip/src/formats/torch_archive.h"
#include "clip/src/formats/torch_writer.h"
#include "clip/src/formats/weights.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

#include "twinlens/clip/pretrained.h"
#include "twinlens/core/autograd.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;
using Members = std::vector<std::pair<std::string, std::string>>;

std::string data_file(const std::string& name) { return std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/" + name; }

std::set<std::string> names_of(const TorchArchive& file) {
  std::set<std::string> out;
  for (const auto& [name, entry] : file.entries()) out.insert(name);
  return out;
}

void check_holds(const std::string& file, const std::string& prefix) {
  INFO(file);
  const TorchArchive archive(data_file(file));
  const Golden expected("torch_files");
  std::set<std::string> names = names_of(archive);
  for (auto it = names.begin(); it != names.end();) it = expected.has(prefix + *it) ? std::next(it) : names.erase(it);
  CHECK(names.size() >= 7);
  for (const auto& [name, tensor] : archive.read(names)) {
    INFO(name);
    const Tensor truth = expected.tensor(prefix + name);
    CHECK(tensor.dtype() == truth.dtype());
    CHECK(tensor.shape() == truth.shape());
    CHECK(tensor.to_vector() == truth.to_vector());
  }
}

TEST_CASE("checkpoints: what torch.save and TorchScript write", "[golden]") {
  check_holds("torch_state.pt", "state.");
  check_holds("torch_protocol4.pt", "state.");
  check_holds("torch_training.pt", "module.");
  check_holds("torch_script.pt", "module.");
  CHECK(names_of(TorchArchive(data_file("torch_state.pt"))).size() == 12);
  CHECK(TorchArchive(data_file("torch_script.pt")).is_script());
  CHECK_FALSE(TorchArchive(data_file("torch_state.pt")).is_script());
}

Members members_of(const std::string& path) {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  archive_read_support_format_zip(reader.get());
  REQUIRE(archive_read_open_filename(reader.get(), path.c_str(), 1 << 16) == ARCHIVE_OK);
  Members out;
  archive_entry* entry = nullptr;
  while (archive_read_next_header(reader.get(), &entry) == ARCHIVE_OK) {
    std::string bytes(static_cast<std::size_t>(archive_entry_size(entry)), '\0');
    archive_read_data(reader.get(), bytes.data(), bytes.size());
    out.emplace_back(archive_entry_pathname(entry), bytes);
  }
  return out;
}

void write_zip(const std::string& path, const Members& members, bool compress = false) {
  const std::unique_ptr<archive, int (*)(archive*)> writer(archive_write_new(), archive_write_free);
  archive_write_set_format_zip(writer.get());
  if (compress) {
    archive_write_zip_set_compression_deflate(writer.get());
  } else {
    archive_write_zip_set_compression_store(writer.get());
  }
  REQUIRE(archive_write_open_filename(writer.get(), path.c_str()) == ARCHIVE_OK);
  for (const auto& [name, bytes] : members) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), name.c_str());
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(bytes.size()));
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_write_header(writer.get(), entry.get());
    archive_write_data(writer.get(), bytes.data(), bytes.size());
  }
  archive_write_close(writer.get());
}

// What reading all tensors of a file says; "" when it is read. Anything but a typed error fails the test.
std::string complaint(const std::string& path) {
  try {
    const TorchArchive file(path);
    file.read(names_of(file));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}
std::string complaint(const Members& members, bool compress = false) {
  const TemporaryFolder folder;
  write_zip(folder / "case.pt", members, compress);
  return complaint(folder / "case.pt");
}

// The pickle of {"x": tensor} on storage "0" of `count` floats, with shape (rows, columns) and strides.
std::string integer(std::int64_t n) {
  std::string out = "\x8a\x08";
  for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<std::uint64_t>(n) >> (8 * i));
  return out;
}
std::string text(const std::string& s) { return "X" + std::string{static_cast<char>(s.size()), 0, 0, 0} + s; }
std::string tensor_pickle(std::int64_t count, const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
                          std::int64_t offset = 0, const std::string& key = "0") {
  const auto tuple = [](const std::vector<std::int64_t>& v) {
    std::string out = "(";
    for (const std::int64_t n : v) out += integer(n);
    return out + "t";
  };
  return "\x80\x02}" + text("x") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text(key) +
         text("cpu") + integer(count) + "tQ" + integer(offset) + tuple(shape) + tuple(strides) + "\x89" +
         "ccollections\nOrderedDict\n)RtRs.";
}
Members floats(const std::string& pickle, std::size_t count = 6) {
  return {{"a/data.pkl", pickle}, {"a/version", "3\n"}, {"a/data/0", std::string(4 * count, '\0')}};
}

TEST_CASE("checkpoints: an archive made by hand is read, its hostile sisters are refused") {
  CHECK(complaint(floats(tensor_pickle(6, {2, 3}, {3, 1}))).empty());
  CHECK(complaint(floats(tensor_pickle(6, {3, 2}, {1, 3}))).empty());
  CHECK(complaint(floats(tensor_pickle(6, {0, 3}, {3, 1}))).empty());
  const auto refused = [](const Members& members, const std::string& why) { CHECK_THAT(complaint(members), Contains(why)); };
  // shapes that leave the storage, by size, stride, offset, overflow, repetition
  refused(floats(tensor_pickle(6, {2, 4}, {4, 1})), "leaves its storage");
  refused(floats(tensor_pickle(6, {2, 3}, {4, 1})), "leaves its storage");
  refused(floats(tensor_pickle(6, {2, 3}, {3, 1}, 1)), "leaves its storage");
  refused(floats(tensor_pickle(6, {std::int64_t{1} << 40, std::int64_t{1} << 40}, {0, 0})), "leaves its storage");
  refused(floats(tensor_pickle(6, {std::int64_t{1} << 62}, {0})), "leaves its storage");
  refused(floats(tensor_pickle(6, {2, 3}, {std::int64_t{1} << 62, std::int64_t{1} << 62})), "leaves its storage");
  refused(floats(tensor_pickle(6, {2, 3}, {-3, 1})), "no size");
  refused(floats(tensor_pickle(6, {2, 3}, {3})), "more sizes than strides");
  // a storage that is longer or shorter than its member, or absent
  refused(floats(tensor_pickle(std::int64_t{1} << 61, {2, 3}, {3, 1})), "elements of F32");
  refused(floats(tensor_pickle(7, {7}, {1})), "24 bytes for 7");
  refused(floats(tensor_pickle(6, {6}, {1}, 0, "1")), "'data/1' is missing");
  refused(floats(tensor_pickle(6, {6}, {1}, 0, "../../etc/passwd")), "is missing");
  refused({{"a/data/0", "1234"}}, "without data.pkl");
  Members twice = floats(tensor_pickle(6, {6}, {1}));
  twice.push_back(twice.front());
  refused(twice, "two members data.pkl");
  Members big = floats(tensor_pickle(6, {6}, {1}));
  big.emplace_back("a/byteorder", "big");
  refused(big, "big endian");
  Members bomb = floats(tensor_pickle(1 << 24, {1 << 24}, {1}), 1 << 24);
  CHECK_THAT(complaint(bomb, true), Contains("longer than the whole file"));
}

TEST_CASE("checkpoints: a pickle can name nothing but tensors") {
  const auto pickle = [](const std::string& bytes) {
    try {
      read_pickle("\x80\x02" + bytes, "here");
      return std::string();
    } catch (const FileError& e) {
      return std::string(e.what());
    }
  };
  CHECK_THAT(pickle("cposix\nsystem\nX\x02\0\0\0ls\x85R."), Contains("'posix.system'"));
  CHECK_THAT(pickle("cbuiltins\neval\n(X\x01\0\0\0"
                    "1tR."),
             Contains("'builtins.eval'"));
  CHECK_THAT(pickle("ctorch\nload\n."), Contains("'torch.load'"));
  CHECK_THAT(pickle("\x8c\x02os\x8c\x06system\x93."), Contains("'os.system'"));
  CHECK_THAT(pickle("c__torch__.a\nB\n)R."), Contains("a call of"));  // a script class is a name only
  CHECK_THAT(pickle("ctorch\nFloatStorage\n)R."), Contains("a call of"));
  CHECK_THAT(pickle("P0\n."), Contains("opcode 80"));               // PERSID
  CHECK_THAT(pickle("iposix\nsystem\n."), Contains("opcode 105"));  // INST
  CHECK_THAT(pickle("(oposix\n."), Contains("opcode 111"));         // OBJ
  CHECK_THAT(pickle("\x82\x01."), Contains("opcode 130"));          // EXT1
  CHECK_THAT(pickle("B\x01\0\0\0x."), Contains("opcode 66"));       // BINBYTES
  CHECK_THAT(pickle("."), Contains("stack is empty"));
  CHECK_THAT(pickle("t."), Contains("mark"));
  CHECK_THAT(pickle("h\x05."), Contains("reference to nothing"));
  CHECK_THAT(pickle("NNs."), Contains("stack is empty"));
  CHECK_THAT(pickle("NNNs."), Contains("no dict"));
  CHECK_THAT(pickle("X\xff\xff\xff\x7f"
                    "abc."),
             Contains("ends early"));
  CHECK_THAT(pickle("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), Contains("ends early"));
  CHECK_THAT(pickle("\x8a\xff."), Contains("255 bytes"));
  CHECK_THAT(pickle("NQ."), Contains("no storage"));
  CHECK_THAT(pickle("N"), Contains("ends early"));
  CHECK_THAT(pickle(std::string(100'000, ']') + std::string(99'999, 'a')), Contains("ends early"));
  // deep nesting and a list that holds itself cost no stack
  CHECK(pickle(std::string(500'000, ']') + std::string(499'999, 'a') + ".").empty());
  CHECK(pickle("]q\x01h\x01"
               "a.")
            .empty());
  // a small pickle that copies a long list again and again
  std::string copies = "(";
  for (int i = 0; i < 3000; ++i) copies += "NN\x86";
  copies += "lq\x01";
  CHECK_THAT(pickle(copies), Contains("opcode 108"));  // LIST is not needed
  copies = "](";
  for (int i = 0; i < 3000; ++i) copies += "NN\x86";
  copies += "eq\x01";
  for (int i = 0; i < 2000; ++i) copies += "ccollections\nOrderedDict\nh\x01\x85R";
  CHECK_THAT(pickle(copies + "."), Contains("more than"));
}

// Whole files with bytes changed, cut and doubled; and pickles alone, which no checksum protects.
TEST_CASE("checkpoints: damaged archives and pickles") {
  std::mt19937 random(11);
  const auto damage = [&](std::string bytes) {
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0 && !bytes.empty(); --changes) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes.resize(at); break;
        case 2: bytes.erase(at, 1 + random() % 16); break;
        default: bytes.insert(at, bytes, at, random() % 16); break;
      }
    }
    return bytes;
  };
  const TemporaryFolder folder;
  int refused = 0, tried = 0;
  for (const char* name : {"torch_state.pt", "torch_training.pt", "torch_script.pt", "torch_protocol4.pt"}) {
    const std::string whole = read_file(data_file(name));
    REQUIRE(complaint(data_file(name)).empty());
    for (int i = 0; i < 150; ++i, ++tried) {
      atomic_write(folder / "case.pt", damage(whole));
      refused += complaint(folder / "case.pt").empty() ? 0 : 1;
    }
    for (const auto& [member, bytes] : members_of(data_file(name))) {
      if (member.size() < 8 || member.compare(member.size() - 8, 8, "data.pkl") != 0) continue;
      for (int i = 0; i < 3000; ++i) {
        try {
          read_pickle(damage(bytes), "case");
        } catch (const FileError&) {
          ++refused;
        }
        ++tried;
      }
    }
  }
  CHECK(refused > tried / 2);
  CHECK_THAT(complaint(data_file("torch_module.pt")), Contains("'torch.nn.modules.linear.Linear'"));
}

TEST_CASE("checkpoints: files of other kinds are named") {
  const TemporaryFolder folder;
  atomic_write(folder / "old.pt", std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15));
  CHECK_THROWS_WITH(WeightFiles({folder / "old.pt"}), Contains("before 1.6"));
  atomic_write(folder / "text.pt", "hello, I am not a checkpoint");
  CHECK_THROWS_AS(WeightFiles({folder / "text.pt"}), FileError);
  atomic_write(folder / "empty.pt", "");
  CHECK_THROWS_AS(WeightFiles({folder / "empty.pt"}), FileError);
}

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
      convert_model(folder / "b", Layout::open_clip, folder / "c");
      CHECK(read_file(folder / "c/open_clip_model.safetensors") == original);
      CHECK(features(*load_model(folder / "c")) == expected);
      CHECK(load_model(folder / "c")->config.quick_gelu == quick);
    }
  }
}

TEST_CASE("checkpoints: converted to torch's files and back, bit for bit") {
  const TemporaryFolder folder;
  Clip model(small_config(true), 3);
  save_model(model, folder / "a");
  const std::string original = read_file(folder / "a/open_clip_model.safetensors");
  for (const Layout layout : {Layout::openai, Layout::open_clip, Layout::hugging_face}) {
    INFO(name_of(layout));
    const TemporaryFolder there;
    const Converted to = convert_model(folder / "a", layout, there / "b", WeightFormat::torch);
    const std::string weights = to.files.back();
    CHECK(find_source(there / "b").layout == layout);
    CHECK(find_source(there / "b").weights == std::vector<std::string>{weights});
    convert_model(there / "b", Layout::open_clip, there / "c");
    CHECK(read_file(there / "c/open_clip_model.safetensors") == original);
    CHECK_FALSE(TorchArchive(weights).is_script());
  }
}

TEST_CASE("checkpoints: torch's files hold every dtype, scalars, nothing and what is not dense") {
  const TemporaryFolder folder;
  StateDict tensors;
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::u8, DType::boolean}) {
    tensors["of " + std::string(name_of(type))] = from_vector(std::vector<float>{0, 1, 1, 0, 1, 1}, {2, 3}).to(type);
  }
  tensors["scalar"] = full({}, 7.0);
  tensors["nothing"] = zeros({0, 4});
  tensors["turned"] = from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3}).transpose(0, 1);
  write_torch(folder / "all.pt", tensors);
  const TorchArchive archive(folder / "all.pt");
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) names.insert(name);
  const auto back = archive.read(names);
  REQUIRE(back.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(back.at(name).dtype() == tensor.dtype());
    CHECK(back.at(name).shape() == tensor.shape());
    CHECK(back.at(name).to(DType::f32).to_vector() == tensor.to(DType::f32).to_vector());
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
  for (const char* name : {"ViT-B-32", "RN50x4", "ViT-H-14", "ViT-bigG-14", "ViT-L-14-336"}) {
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

}  // namespace
}  // namespace twinlens::test
