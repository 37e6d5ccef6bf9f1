#include "clip/src/formats/torch_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <exception>
#include <memory>
#include <string_view>

#include "twinlens/core/file.h"
#include "twinlens/core/ops.h"
#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

constexpr const char* kFolder = "archive/";  // torch takes any; this is the one it writes

const char* storage_of(DType type) {
  switch (type) {
    case DType::f32: return "FloatStorage";
    case DType::f16: return "HalfStorage";
    case DType::bf16: return "BFloat16Storage";
    case DType::i64: return "LongStorage";
    case DType::i32: return "IntStorage";
    case DType::u8: return "ByteStorage";
    case DType::boolean: return "BoolStorage";
  }
  return "";
}

// A pickle of protocol 2 (Python's pickletools names the opcodes): a dict from names to calls of torch._utils._rebuild_tensor_v2.
class StateDictPickle {
 public:
  StateDictPickle() : out_("\x80\x02}(") {}  // PROTO 2, EMPTY_DICT, MARK

  void add(const std::string& name, const Tensor& tensor, const std::string& storage) {
    text(name);
    global("torch._utils", "_rebuild_tensor_v2");
    out_ += '(';
    // The persistent id of the storage: ('storage', class, key, location, elements).
    out_ += '(';
    text("storage");
    global("torch", storage_of(tensor.dtype()));
    text(storage);
    text("cpu");
    number(tensor.count());
    out_ += "tQ";  // TUPLE, BINPERSID
    number(0);     // offset
    numbers(tensor.shape());
    numbers(dense_strides(tensor.shape()));
    out_ += "\x89";  // requires_grad: NEWFALSE
    global("collections", "OrderedDict");
    out_ += ")RtR";  // backward hooks: OrderedDict(); then TUPLE, REDUCE: the call
  }
  std::string finish() { return out_ + "u."; }  // SETITEMS, STOP

 private:
  void little(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xFF);
  }
  void text(const std::string& s) {
    out_ += 'X';  // BINUNICODE
    little(s.size(), 4);
    out_ += s;
  }
  void number(std::int64_t n) {
    const bool is_short = n <= 0x7FFFFFFF;
    out_ += is_short ? "J" : "\x8a\x08";  // BININT, or LONG1 of 8 bytes
    little(static_cast<std::uint64_t>(n), is_short ? 4 : 8);
  }
  void numbers(const Shape& shape) {
    out_ += '(';
    for (const std::int64_t n : shape) number(n);
    out_ += 't';
  }
  void global(const char* module, const char* name) { out_ += std::string("c") + module + "\n" + name + "\n"; }

  static Shape dense_strides(const Shape& shape) {
    Shape out;
    for (int d = 0; d < shape.rank(); ++d) {
      std::int64_t stride = 1;
      for (int k = d + 1; k < shape.rank(); ++k) stride *= shape[k];
      out.push_back(stride);
    }
    return out;
  }

  std::string out_;
};

// A zip of stored members through libarchive into an AtomicFile.
class StoredZip {
 public:
  explicit StoredZip(const std::string& path) : path_(path), file_(path), writer_(archive_write_new(), archive_write_free) {
    if (writer_ == nullptr) throw Error("cannot start libarchive; " + path + "; free some memory");
    archive_write_set_format_zip(writer_.get());
    archive_write_zip_set_compression_store(writer_.get());
    archive_write_set_bytes_per_block(writer_.get(), 1 << 20);
    archive_write_set_bytes_in_last_block(writer_.get(), 1);  // no padding
    check(archive_write_open(writer_.get(), this, nullptr, write, nullptr));
  }
  void add(const std::string& name, const void* bytes, std::size_t count) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    archive_entry_set_pathname(entry.get(), (kFolder + name).c_str());
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(count));
    check(archive_write_header(writer_.get(), entry.get()));
    const auto* from = static_cast<const char*>(bytes);
    for (std::size_t done = 0; done < count;) {
      const la_ssize_t n = archive_write_data(writer_.get(), from + done, count - done);
      check(n > 0 ? ARCHIVE_OK : ARCHIVE_FATAL);
      done += static_cast<std::size_t>(n);
    }
  }
  void add(const std::string& name, std::string_view text) { add(name, text.data(), text.size()); }
  void finish() {
    check(archive_write_close(writer_.get()));
    file_.commit();
  }

 private:
  // An exception must not pass through C: it is kept for check().
  static la_ssize_t write(archive*, void* self, const void* bytes, std::size_t count) {
    auto& zip = *static_cast<StoredZip*>(self);
    try {
      zip.file_.write(bytes, count);
    } catch (...) {
      zip.failure_ = std::current_exception();
      return -1;
    }
    return static_cast<la_ssize_t>(count);
  }
  void check(int status) const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    if (status >= ARCHIVE_WARN) return;
    const char* why = archive_error_string(writer_.get());
    throw FileError(std::string("cannot be written: ") + (why == nullptr ? "no reason given" : why) + "; '" + path_ +
                    "'; check permissions and free space");
  }

  std::string path_;
  AtomicFile file_;
  std::exception_ptr failure_;
  std::unique_ptr<archive, int (*)(archive*)> writer_;  // freed, and so closed, before the file goes
};

}  // namespace

void write_torch(const std::string& path, const std::map<std::string, Tensor>& tensors) {
  StateDictPickle pickle;
  std::size_t index = 0;
  for (const auto& [name, tensor] : tensors) pickle.add(name, tensor, std::to_string(index++));
  StoredZip zip(path);
  zip.add("data.pkl", pickle.finish());
  zip.add("byteorder", "little");
  index = 0;
  for (const auto& [name, tensor] : tensors) {
    const Tensor rows = dense(tensor.detach());
    zip.add("data/" + std::to_string(index++), rows.raw(), static_cast<std::size_t>(rows.count() * size_of(rows.dtype())));
  }
  zip.add("version", "3\n");
  zip.finish();
}

}  // namespace twinlens
