#pragma once
// Files on disk. A file that is written here is either whole under its name or not there: bytes go to a temporary file in the same
// folder, which is renamed onto the name once they are on the disk. Whatever happens before that (disk full, crash, exception) leaves
// the old file as it was. Every failure is a FileError that names the file, the system's reason and a remedy.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace twinlens {

// Replaces or creates `path` with these bytes: temporary file, fsync, rename, fsync of the folder. Of a symbolic link to a file that is
// there, the file is replaced; what is no file (a folder, a device, a pipe) is refused.
void atomic_write(const std::string& path, std::string_view bytes);

// The same for a file that is written piece by piece. Not thread-safe.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();  // without commit(): removes what was written
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* bytes, std::size_t count);
  // The file is there, under its name, when this returns.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_, temporary_;
  int descriptor_ = -1;
};

// A file open for reading anywhere in it, from any number of threads.
class InputFile {
 public:
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }         // when it was opened
  std::int64_t modified() const { return modified_; }  // nanoseconds since 1970, when it was opened
  void read_at(std::uint64_t offset, void* to, std::size_t count) const;
  // A hint: these bytes will be read soon. Returns at once.
  void will_need(std::uint64_t offset, std::uint64_t count) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  std::int64_t modified_ = 0;
};

// The bytes of a file, mapped and shared with every process that maps it; pages come from the disk when they are touched. The file must
// not be cut short while it is mapped (one that is replaced by AtomicFile stays whole).
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

// Makes a folder and those above it, where they are not there; whether there was anything to make.
bool make_folder(const std::string& path);
// A folder that goes again if it was made for this and nothing came into it.
class NewFolder {
 public:
  explicit NewFolder(std::string path);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

 private:
  std::string path_;
  bool is_new_;
};
// Renames a finished file or folder and syncs the folder that holds it.
void rename_synced(const std::string& from, const std::string& to);
// The same when a folder `to` may be there already: it is exchanged for the new one in one operation, where the file system can, and then
// removed.
void replace_folder(const std::string& from, const std::string& to);

// All bytes of a file.
std::string read_file(const std::string& path);
// The same of what a person named, which may be a pipe, as <(...) makes them: it is read to its end, whoever writes into it.
std::string read_file_or_pipe(const std::string& path);

}  // namespace twinlens
