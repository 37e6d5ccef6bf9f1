#include "twinlens/core/file.h"

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include "tests/support/temporary_folder.h"

#include "twinlens/core/safetensors.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using test::TemporaryFolder;

// No file may grow beyond `bytes` while this lives: what a full disk does to write().
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit limit{bytes, previous_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit previous_{};
  void (*handler_)(int);
};

TEST_CASE("atomic_write replaces a file and leaves nothing else") {
  const TemporaryFolder folder;
  const std::string path = folder / "notes.txt";
  atomic_write(path, "first");
  CHECK(read_file(path) == "first");
  atomic_write(path, std::string_view("a\0b", 3));
  CHECK(read_file(path) == std::string("a\0b", 3));
  atomic_write(path, "");
  CHECK(read_file(path).empty());
  CHECK(folder.names() == std::vector<std::string>{"notes.txt"});
}

TEST_CASE("a link's file is replaced, and what is no file is refused") {
  const TemporaryFolder folder;
  atomic_write(folder / "file", "old");
  std::filesystem::create_symlink(folder / "file", folder / "link");
  atomic_write(folder / "link", "new");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(read_file(folder / "file") == "new");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(atomic_write(folder / "pipe", "x"), Catch::Contains("not a file but a device") && Catch::Contains("pipe"));
  std::filesystem::create_symlink("/dev/null", folder / "null");
  CHECK_THROWS_WITH(atomic_write(folder / "null", "x"), Catch::Contains("'/dev/null'"));
  CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("a pipe is read to its end where one may stand") {
  const TemporaryFolder folder;
  const std::string pipe = folder / "pipe", text(200'000, 'x');
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  std::thread writer([&] { std::ofstream(pipe) << text; });
  CHECK(read_file_or_pipe(pipe) == text);
  writer.join();
}

TEST_CASE("a pipe that nobody writes into is refused, not waited for") {
  const TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  ::alarm(20);  // (what hangs would hang for ever)
  CHECK_THROWS_WITH(read_file(folder / "pipe"), Catch::Contains("not a file but a device, a pipe") && Catch::Contains("'; give the name"));
  CHECK_THROWS_WITH(MappedFile(folder / "pipe"), Catch::Contains("not a file but a device, a pipe") && Catch::Contains("to one first"));
  CHECK_THROWS_WITH(MappedFile("/dev/null"), Catch::Contains("not a file but a device"));
  CHECK_THROWS_WITH(read_file("/dev/null"), Catch::Contains("not a file but a device"));
  ::alarm(0);
}

TEST_CASE("a file that is not committed was never there") {
  const TemporaryFolder folder;
  atomic_write(folder / "kept", "old");
  {
    AtomicFile file(folder / "kept");
    file.write("new", 3);
    CHECK(folder.names().size() == 2);
  }
  CHECK(read_file(folder / "kept") == "old");
  CHECK(folder.names() == std::vector<std::string>{"kept"});
}

TEST_CASE("a full disk leaves the old file and no temporary behind") {
  const TemporaryFolder folder;
  const std::string text = folder / "text", model = folder / "model.safetensors";
  atomic_write(text, "old");
  write_safetensors(model, {{"w", full({4}, 1.0)}});
  {
    const FileSizeLimit limit(1024);
    CHECK_THROWS_WITH(atomic_write(text, std::string(5000, 'x')),
                      Catch::Contains("cannot write the file") && Catch::Contains(text) && Catch::Contains("free some space"));
    CHECK_THROWS_AS(write_safetensors(model, {{"w", full({5000}, 2.0)}}), FileError);
  }
  CHECK(read_file(text) == "old");
  CHECK(SafetensorsFile(model).tensor("w").to_vector() == std::vector<float>{1, 1, 1, 1});
  CHECK(folder.names().size() == 2);
  atomic_write(text, "new");
  CHECK(read_file(text) == "new");
}

TEST_CASE("file errors name the file and the remedy") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(atomic_write(folder / "no/such/folder", "x"), Catch::Contains("no/such/folder") && Catch::Contains("must exist"));
  CHECK_THROWS_WITH(read_file(folder / "absent"), Catch::Contains("cannot open") && Catch::Contains("absent"));
  CHECK_THROWS_WITH(read_file(folder.path()), Catch::Contains("not a folder"));
  CHECK_THROWS_WITH(MappedFile(folder.path()), Catch::Contains("Is a directory; '" + folder.path() + "'; give a file, not a folder"));
  CHECK_THROWS_WITH(AtomicFile(folder.path()), Catch::Contains("not a file but a folder; '" + folder.path() + "'"));
  CHECK_THROWS_WITH(AtomicFile(""), Catch::Contains("a file without a name; ''; give the name of a file"));
  CHECK(folder.names().empty());
  atomic_write(folder / "short", "12345");
  char bytes[8];
  CHECK_THROWS_WITH(InputFile(folder / "short").read_at(2, bytes, 8), Catch::Contains("ends at byte 5, 5 bytes early"));
  const InputFile file(folder / "short");
  CHECK_THROWS_WITH(file.read_at(100'000, bytes, 8),
                    Catch::Contains("ends at byte 5, 100003 bytes early; '" + folder.path() + "/short'; what"));
  std::filesystem::resize_file(folder / "short", 3);
  CHECK_THROWS_WITH(file.read_at(0, bytes, 5), Catch::Contains("ends at byte 3, 2 bytes early") && Catch::Contains("cut short"));
}

}  // namespace
}  // namespace twinlens
