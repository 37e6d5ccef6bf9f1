// torch's files: archives whole, made by hand, damaged and hostile; and those that are written here.

#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <set>

#include "clip/src/formats/pickle.h"
#include "clip/src/formats/torch_archive.h"
#include "clip/src/formats/torch_writer.h"
#include "clip/src/formats/weights.h"
#include "tests/support/archive_files.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_folder.h"

#include "twinlens/clip/pretrained.h"
#include "twinlens/core/file.h"
#include "twinlens/kernels/error.h"

namespace twinlens::test {
namespace {

using Catch::Contains;

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
  write_archive(path, members, [&](archive* out) {
    archive_write_set_format_zip(out);
    if (compress) {
      archive_write_zip_set_compression_deflate(out);
    } else {
      archive_write_zip_set_compression_store(out);
    }
  });
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
                          std::int64_t offset = 0, const std::string& key = "0", const std::string& metadata = "") {
  const auto tuple = [](const std::vector<std::int64_t>& v) {
    std::string out = "(";
    for (const std::int64_t n : v) out += integer(n);
    return out + "t";
  };
  return "\x80\x02}" + text("x") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text(key) +
         text("cpu") + integer(count) + "tQ" + integer(offset) + tuple(shape) + tuple(strides) + "\x89" + "ccollections\nOrderedDict\n)R" +
         metadata + "tRs.";
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
  refused(floats(tensor_pickle(6, {std::int64_t{1} << 62}, {0})), "more than twice as large");
  refused(floats(tensor_pickle(6, {1 << 18, 2}, {0, 1})), "more than twice as large");
  refused(floats(tensor_pickle(6, {2, 3}, {0, 3})), "leaves its storage");
  refused(floats(tensor_pickle(6, {2, 3}, {std::int64_t{1} << 62, std::int64_t{1} << 62})), "leaves its storage");
  refused(floats(tensor_pickle(6, {2, 3}, {-3, 1})), "no size");
  refused(floats(tensor_pickle(6, {2, 3}, {3})), "more sizes than strides");
  // torch's metadata: nothing, or that the numbers are stored with the other sign
  CHECK(complaint(floats(tensor_pickle(6, {2, 3}, {3, 1}, 0, "0", "}"))).empty());
  refused(floats(tensor_pickle(6, {2, 3}, {3, 1}, 0, "0", "}" + text("neg") + "\x88s")), "a negative or conjugate bit");
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

TEST_CASE("checkpoints: expanded tensors are read, and a torch.dtype beside the weights is passed over") {
  const TemporaryFolder folder;
  std::string pickle = tensor_pickle(6, {4, 1, 3}, {0, 6, 2}, 1);
  pickle.pop_back();
  pickle += text("dtype") + "ctorch\nfloat32\ns" + text("dtypes") + "}" + text("half") + "ctorch\nfloat16\nss.";
  Members members = floats(pickle);
  const float values[6] = {0, 1, 2, 3, 4, 5};
  std::memcpy(members.back().second.data(), values, sizeof(values));
  write_zip(folder / "x.pt", members);
  const TorchArchive file(folder / "x.pt");
  CHECK(names_of(file) == std::set<std::string>{"x"});
  const Tensor x = file.read({"x"}).at("x");
  CHECK(x.shape() == Shape{4, 1, 3});
  CHECK(x.to_vector() == std::vector<float>{1, 3, 5, 1, 3, 5, 1, 3, 5, 1, 3, 5});
  // One that nobody asks for may repeat its elements as it likes.
  write_zip(folder / "large.pt", floats(tensor_pickle(6, {std::int64_t{1} << 40}, {0})));
  CHECK(TorchArchive(folder / "large.pt").read({}).empty());
  CHECK_THROWS_WITH(read_pickle("\x80\x02"
                                "ctorch\nfloat32\n)R.",
                                "here"),
                    Contains("a call of 'torch float32'"));
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
  // names that are copied with every use
  const std::string long_name = std::string("X\x58\x02\0\0", 5) + std::string(600, 'a');
  CHECK_THAT(pickle(std::string("X\x09\0\0\0__torch__", 14) + long_name + "\x93."), Contains("a class with a name of 610 bytes"));
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
  atomic_write(folder / "lfs.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6\n");
  CHECK_THROWS_WITH(WeightFiles({folder / "lfs.safetensors"}), Contains("a pointer of Git LFS") && Contains("git lfs pull"));
  atomic_write(folder / "empty.pt", "");
  CHECK_THROWS_AS(WeightFiles({folder / "empty.pt"}), FileError);
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

}  // namespace
}  // namespace twinlens::test
