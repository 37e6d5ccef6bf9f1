// The first half are the vectors of the safetensors crate (safetensors/src/tensor.rs), byte for byte.

#include "twinlens/core/safetensors.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "tests/support/temporary_folder.h"

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using test::TemporaryFolder;

std::string little_endian(std::uint64_t n) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(n >> (8 * i));
  return bytes;
}

std::string file_of(const std::string& header, const std::string& data = "") { return little_endian(header.size()) + header + data; }

std::string one_tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"test":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

// What opening a file of these bytes says; "" when it is accepted.
std::string complaint(const std::string& bytes) {
  const TemporaryFolder folder;
  const std::string path = folder / "case.safetensors";
  atomic_write(path, bytes);
  try {
    const SafetensorsFile file(path);
    for (const SafetensorsEntry& entry : file.entries()) {
      if (entry.dtype != "F64") file.tensor(entry.name);
    }
    return "";
  } catch (const FileError& error) {
    const std::string text = error.what();
    CHECK_THAT(text, Catch::Contains("case.safetensors"));
    return text;
  }
}

std::string written(const std::map<std::string, Tensor>& tensors, const std::map<std::string, std::string>& metadata) {
  const TemporaryFolder folder;
  write_safetensors(folder / "out", tensors, metadata);
  return read_file(folder / "out");
}

const std::string kZeros16(16, '\0');

TEST_CASE("safetensors: written bytes are those of the crate") {
  const Tensor attention = from_vector(std::vector<float>{0, 1, 2, 3, 4, 5}, {1, 2, 3});
  const std::string data = std::string("\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40", 24);
  const std::string plain = file_of(R"({"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}})", data);
  CHECK(plain[0] == 64);
  CHECK(written({{"attn.0", attention}}, {}) == plain);
  const std::string padded = file_of(R"({"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}})" + std::string(7, ' '), data);
  CHECK(padded[0] == 72);
  CHECK(written({{"attn0", attention.reshape({1, 1, 2, 3})}}, {}) == padded);
  CHECK(written({}, {}) == std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
  CHECK(written({}, {{"framework", "pt"}}) == std::string("\x28\0\0\0\0\0\0\0", 8) + R"({"__metadata__":{"framework":"pt"}}     )");
  for (const std::string& bytes : {plain, padded}) CHECK(complaint(bytes).empty());
}

TEST_CASE("safetensors: valid files") {
  CHECK(complaint(file_of(one_tensor("I32", "[2,2]", "[0,16]"), kZeros16)).empty());
  CHECK(complaint(file_of(one_tensor("I32", "[]", "[0,4]"), std::string(4, '\0'))).empty());
  CHECK(complaint(file_of(one_tensor("I32", "[2,0]", "[0, 0]"))).empty());
  CHECK(complaint(file_of("{}\x0D\x20\x09\x0A")).empty());
  CHECK(complaint(file_of(R"({"__metadata__":null})")).empty());
}

TEST_CASE("safetensors: what is refused, by the name of the rule") {
  const std::string valid = one_tensor("I32", "[2,2]", "[0,16]");
  const auto refused_as = [](const std::string& bytes, const std::string& kind) {
    CHECK_THAT(complaint(bytes), Catch::Contains(": " + kind + ":"));
  };
  refused_as("", "HeaderTooSmall");
  refused_as("1234567", "HeaderTooSmall");
  refused_as(std::string("<\0\0\0\0\xff\xff\xff", 8) + valid + kZeros16, "HeaderTooLarge");
  refused_as(std::string(8, '\xff') + valid + kZeros16, "HeaderTooLarge");
  refused_as(little_endian(100'000'001) + valid, "HeaderTooLarge");
  refused_as(little_endian(60), "InvalidHeaderLength");
  refused_as(little_endian(~std::uint64_t{0} - 3), "HeaderTooLarge");
  refused_as(file_of("\xff"), "InvalidHeader");
  refused_as(file_of("{"), "InvalidHeaderDeserialization");
  refused_as(file_of(""), "InvalidHeaderStart");
  refused_as(file_of("\x09\x0A{}\x0D\x20"), "InvalidHeaderStart");
  refused_as(file_of(valid, kZeros16 + "extra_bogus_data_for_polyglot_file"), "MetadataIncompleteBuffer");
  refused_as(file_of(valid, std::string(14, '\0')), "MetadataIncompleteBuffer");
  refused_as(file_of(one_tensor("I32", "[2,2]", "[0,4]")), "TensorInvalidInfo");
  refused_as(file_of(one_tensor("I32", "[2,18446744073709551614]", "[0,16]"), kZeros16), "ValidationOverflow");
  refused_as(file_of(one_tensor("I32", "[2,9223372036854775807]", "[0,16]"), kZeros16), "ValidationOverflow");

  std::string same_offsets = "{";
  for (int i = 0; i < 10; ++i) {
    if (i > 0) same_offsets.append(",");
    same_offsets.append("\"weight_").append(std::to_string(i)).append(R"(":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]})");
  }
  refused_as(file_of(same_offsets + "}", kZeros16), "InvalidOffset");
}

// What the crate's vectors leave out.
TEST_CASE("safetensors: hostile headers") {
  const auto refused_as = [](const std::string& header, const std::string& kind) {
    CHECK_THAT(complaint(file_of(header, kZeros16)), Catch::Contains(": " + kind + ":"));
  };
  refused_as(one_tensor("I32", "[2,2]", "[16,0]"), "InvalidOffset");
  refused_as(one_tensor("I32", "[1,2]", "[8,16]"), "InvalidOffset");
  refused_as(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
             "InvalidOffset");
  refused_as(R"({"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]},"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
             "InvalidOffset");
  refused_as(one_tensor("F4", "[3]", "[0,1]"), "MisalignedSlice");
  for (const char* header : {
           R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})",
           R"({"test":{"dtype":"U8","dtype":"I8","shape":[16],"data_offsets":[0,16]}})",
           R"({"test":{"dtype":"F33","shape":[4],"data_offsets":[0,16]}})",
           R"({"test":{"shape":[4],"data_offsets":[0,16]}})",
           R"({"test":{"dtype":"I32","shape":4,"data_offsets":[0,16]}})",
           R"({"test":{"dtype":"I32","shape":[-4],"data_offsets":[0,16]}})",
           R"({"test":{"dtype":"I32","shape":[4.0],"data_offsets":[0,16]}})",
           R"({"test":{"dtype":"I32","shape":[4],"data_offsets":[0]}})",
           R"({"test":{"dtype":"I32","shape":[99999999999999999999],"data_offsets":[0,16]}})",
           R"({"__metadata__":{"step":7}})",
           R"({"__metadata__":["pt"]})",
           R"({"test":[[[[[[[[1]]]]]]]]})",
           R"({} {})",
       }) {
    refused_as(header, "InvalidHeaderDeserialization");
  }
  refused_as("{\"\xED\xA0\x80\":1}", "InvalidHeader");  // a surrogate
  // Valid, but no Tensor: the sizes around the 0 multiply beyond 2^63.
  CHECK_THAT(complaint(file_of(one_tensor("I32", "[0,4611686018427387904,4]", "[0,0]"))), Catch::Contains("beyond 2^63"));
  CHECK_THAT(complaint(file_of(one_tensor("U8", "[1,1,1,1,1,1,16]", "[0,16]"), kZeros16)), Catch::Contains("7 dimensions"));
  CHECK_THAT(complaint(file_of(one_tensor("F8_E4M3", "[16]", "[0,16]"), kZeros16)), Catch::Contains("F8_E4M3"));
}

// A file with bytes changed, dropped or doubled is read or refused by a FileError: nothing else may come out, and no read leaves the file
// (which the sanitizer builds would tell).
TEST_CASE("safetensors: 1000 damaged files") {
  const std::string whole = file_of(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})",
      kZeros16 + "abc");
  REQUIRE(complaint(whole).empty());
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string bytes = whole;
    for (int changes = 1 + i % 3; changes > 0; --changes) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes[at] = "0123456789[]{},:\"-"[random() % 18]; break;
        case 2: bytes.erase(at, 1 + random() % 3); break;
        default: bytes.insert(at, bytes, at, random() % 8); break;
      }
      if (bytes.empty()) break;
    }
    refused += complaint(bytes).empty() ? 0 : 1;
  }
  CHECK(refused > 600);
}

TEST_CASE("safetensors: every dtype there and back, layouts, order of the bytes") {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  const Tensor x = from_vector(std::vector<float>{1.5F, -2.0F, 0.0F, 3.0F, 100.0F, 7.0F}, {2, 3});
  std::map<std::string, Tensor> tensors;
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8, DType::boolean})
    tensors[name_of(t)] = x.to(t);
  tensors["a transposed f32"] = x.clone().transpose(0, 1);
  tensors["scalar"] = scalar(4.6052F);
  tensors["empty"] = zeros({0, 5}, DType::bf16);
  tensors["\"quoted\"\n\u00e9"] = arange(3);
  write_safetensors(path, tensors, {{"format", "pt"}, {"note", "tab\there"}});

  const SafetensorsFile file(path);
  REQUIRE(file.entries().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    REQUIRE(file.contains(name));
    const Tensor back = file.tensor(name);
    CHECK(back.dtype() == tensor.dtype());
    CHECK(back.shape() == tensor.shape());
    CHECK(back.to_vector() == tensor.to_vector());
  }
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"note", "tab\there"}});
  std::string order;
  for (const SafetensorsEntry& entry : file.entries()) order += entry.dtype + " ";
  CHECK(order == "I64 I64 F32 F32 F32 I32 BF16 BF16 F16 U8 BOOL ");
  CHECK_THROWS_WITH(file.tensor("visual.proj"), Catch::Contains("no tensor 'visual.proj'") && Catch::Contains(path));
  CHECK_THROWS_WITH(file.doubles("f32"), Catch::Contains("F32, not F64"));
}

TEST_CASE("safetensors: F64 is read as double") {
  const TemporaryFolder folder;
  const double values[2] = {0.1, -1e300};
  atomic_write(folder / "d", file_of(one_tensor("F64", "[2]", "[0,16]"), std::string(reinterpret_cast<const char*>(values), 16)));
  const SafetensorsFile file(folder / "d");
  CHECK(file.doubles("test") == std::vector<double>{0.1, -1e300});
  CHECK_THROWS_WITH(file.tensor("test"), Catch::Contains("doubles()"));
}

TEST_CASE("safetensors: tensors that share memory, and impossible names") {
  const TemporaryFolder folder;
  const std::string path = folder / "out";
  const Tensor block = zeros({8});
  CHECK_THROWS_WITH(write_safetensors(path, {{"a", block}, {"b", block.reshape({2, 4})}}),
                    Catch::Contains("'a' and 'b' share memory") && Catch::Contains("clone()"));
  CHECK_THROWS_AS(write_safetensors(path, {{"a", block.slice(0, 0, 5)}, {"b", block.slice(0, 4, 8)}}), FileError);
  CHECK_THROWS_AS(write_safetensors(path, {{"__metadata__", block}}), FileError);
  CHECK_THROWS_AS(write_safetensors(path, {{"\xff", block}}), FileError);
  CHECK_THROWS_WITH(write_safetensors(path, {{"a", block}, {"none", Tensor{}}}), Catch::StartsWith("tensor 'none' is absent; '" + path));
  CHECK(folder.names().empty());
  CHECK_NOTHROW(write_safetensors(path, {{"a", block.slice(0, 0, 4)}, {"b", block.slice(0, 4, 8)}}));
}

TEST_CASE("safetensors: views that lie between each other are written, those that meet are refused") {
  const TemporaryFolder folder;
  const std::string path = folder / "out";
  const Tensor block = arange(24).to(DType::f32).reshape({4, 6}), cube = block.reshape({2, 2, 6});
  const std::map<std::string, Tensor> columns{{"left", block.slice(1, 0, 2)},
                                              {"middle", block.slice(1, 2, 3)},
                                              {"right", block.slice(1, 3, 6).transpose(0, 1)},
                                              {"wide", full({1}, 5.0).expand({3})},
                                              {"none", block.slice(1, 2, 2)}};
  write_safetensors(path, columns);
  for (const auto& [name, tensor] : read_safetensors(path)) {
    INFO(name);
    CHECK(tensor.shape() == columns.at(name).shape());
    CHECK(tensor.to_vector() == columns.at(name).to_vector());
  }
  CHECK_NOTHROW(write_safetensors(path, {{"a", cube.slice(1, 0, 1)}, {"b", cube.slice(1, 1, 2)}}));
  const auto shares = Catch::Contains("'a' and 'b' share memory");
  CHECK_THROWS_WITH(write_safetensors(path, {{"a", block.slice(1, 0, 3)}, {"b", block.slice(1, 2, 4)}}), shares);
  CHECK_THROWS_WITH(write_safetensors(path, {{"a", block.slice(1, 0, 3)}, {"b", block.slice(0, 3, 4)}}), shares);
  CHECK_THROWS_WITH(write_safetensors(path, {{"a", block.transpose(0, 1)}, {"b", block.select(0, 2).slice(0, 5, 6)}}), shares);
  // The long one is not the neighbour of what lies in its end.
  const std::map<std::string, Tensor> nested{{"a", block.slice(0, 0, 3)}, {"b", block.slice(0, 0, 1)}, {"c", block.slice(0, 2, 3)}};
  CHECK_THROWS_AS(write_safetensors(path, nested), FileError);
}

TEST_CASE("safetensors: a file by Python's writer") {
  const SafetensorsFile file(std::string(TWINLENS_SOURCE_DIR) + "/tests/golden/data/loss.safetensors");
  CHECK_FALSE(file.entries().empty());
  for (const SafetensorsEntry& entry : file.entries()) {
    if (entry.dtype == "F64") {
      for (const double v : file.doubles(entry.name)) CHECK(std::isfinite(v));
    } else {
      CHECK(static_cast<std::size_t>(file.tensor(entry.name).rank()) == entry.shape.size());
    }
  }
}

}  // namespace
}  // namespace twinlens
