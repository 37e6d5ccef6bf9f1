#include "clip/src/formats/pickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "twinlens/kernels/error.h"

namespace twinlens {
namespace {

using Kind = PickleValue::Kind;

// Of everything that is made, copies included, so that a small pickle cannot grow: a checkpoint with optimizer needs about 100,000.
constexpr std::size_t kMostValues = 2'000'000;

constexpr std::array kRebuildTensor = {"torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"};
constexpr std::array kFirstArgument = {"torch._utils _rebuild_parameter",
                                       "torch._utils _rebuild_parameter_with_state",
                                       "torch.jit._pickle build_intlist",
                                       "torch.jit._pickle build_tensorlist",
                                       "torch.jit._pickle build_doublelist",
                                       "torch.jit._pickle build_boollist",
                                       "torch.jit._pickle restore_type_tag",
                                       "torch Size",
                                       "torch device"};
constexpr const char* kOrderedDict = "collections OrderedDict";
constexpr std::array kStorages = {"Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool"};

template <std::size_t n>
bool is_among(const std::string& name, const std::array<const char*, n>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// "torch FloatStorage" -> "FloatStorage"; empty when it is none.
std::string storage_class(const std::string& global) {
  for (const char* type : kStorages) {
    const std::string name = std::string(type) + "Storage";
    if (global == "torch " + name || global == "torch.storage " + name) return name;
  }
  return {};
}

// Values of torch.dtype, which stand beside weights (of a config, say) and are only names here.
constexpr std::array kDTypes = {"torch float32",    "torch float64",       "torch float16",     "torch bfloat16",  "torch int64",
                                "torch int32",      "torch int16",         "torch int8",        "torch uint8",     "torch uint16",
                                "torch uint32",     "torch uint64",        "torch bool",        "torch complex32", "torch complex64",
                                "torch complex128", "torch float8_e4m3fn", "torch float8_e5m2", "torch qint8",     "torch quint8"};

constexpr std::size_t kLongestText = 500;

// Classes of TorchScript modules, which are only names here.
bool is_script_class(const std::string& global) { return global.rfind("__torch__", 0) == 0; }

class Machine {
 public:
  Machine(std::string_view bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  Pickle run() {
    while (true) {
      const std::uint8_t op = u8();
      if (op == '.') break;
      step(op);
    }
    out_.root = pop();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw FileError("not a checkpoint that can be read: " + what + "; " + source_ + " at byte " + std::to_string(at_) +
                    "; save the state dict alone with torch.save, or as safetensors");
  }

  // --- bytes ------------------------------------------------------------------------------------------------------------------------
  const char* take(std::size_t count) {
    if (count > bytes_.size() - at_) fail("the pickle ends early");
    const char* p = bytes_.data() + at_;
    at_ += count;
    return p;
  }
  std::uint64_t unsigned_number(std::size_t width) {
    const char* p = take(width);
    std::uint64_t n = 0;
    for (std::size_t i = 0; i < width; ++i) n |= std::uint64_t{static_cast<std::uint8_t>(p[i])} << (8 * i);
    return n;
  }
  std::uint8_t u8() { return static_cast<std::uint8_t>(unsigned_number(1)); }
  std::string text(std::uint64_t length) {
    if (length > bytes_.size() - at_) fail("the pickle ends early");
    const auto n = static_cast<std::size_t>(length);
    return {take(n), n};
  }
  std::string line() {
    const std::size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) fail("the pickle ends early");
    std::string out(bytes_.substr(at_, end - at_));
    at_ = end + 1;
    return out;
  }

  // --- values and the stack -----------------------------------------------------------------------------------------------------------
  void spend(std::size_t values) {
    spent_ += values;
    if (spent_ > kMostValues) fail("it holds more than " + std::to_string(kMostValues) + " values");
  }
  void push(PickleValue value) {
    spend(1 + value.items.size() + value.shape.size());
    out_.values.push_back(std::move(value));
    stack_.push_back(static_cast<PickleRef>(out_.values.size() - 1));
  }
  void push(Kind kind) {
    PickleValue value;
    value.kind = kind;
    push(std::move(value));
  }
  void push_integer(Kind kind, std::int64_t n) {
    PickleValue value;
    value.kind = kind;
    value.integer = n;
    push(std::move(value));
  }
  void push_text(Kind kind, std::string text) {
    PickleValue value;
    value.kind = kind;
    value.text = std::move(text);
    push(std::move(value));
  }
  PickleRef pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) fail("the stack is empty");
    const PickleRef top = stack_.back();
    stack_.pop_back();
    return top;
  }
  PickleValue& value(PickleRef i) { return out_.values[i]; }
  PickleRef top() {
    const PickleRef i = pop();
    stack_.push_back(i);
    return i;
  }
  std::vector<PickleRef> pop_to_mark() {
    if (marks_.empty()) fail("a mark is missing");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleRef> out(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return out;
  }
  void push_tuple(std::vector<PickleRef> items) {
    PickleValue tuple;
    tuple.kind = Kind::tuple;
    tuple.items = std::move(items);
    push(std::move(tuple));
  }
  void push_tuple(std::size_t count) {
    std::vector<PickleRef> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }
  void append(PickleRef to, Kind kind, const std::vector<PickleRef>& items) {
    PickleValue& v = value(to);
    if (v.kind != kind) fail(kind == Kind::dict ? "items for something that is no dict" : "elements for something that is no list");
    if (kind == Kind::dict && items.size() % 2 != 0) fail("a key without value");
    spend(items.size());
    v.items.insert(v.items.end(), items.begin(), items.end());
  }

  // --- opcodes ------------------------------------------------------------------------------------------------------------------------
  void step(std::uint8_t op) {
    switch (op) {
      case 0x80: {  // PROTO
        const std::uint8_t protocol = u8();
        if (protocol < 2 || protocol > 5) fail("pickle protocol " + std::to_string(protocol));
        return;
      }
      case 0x95: take(8); return;  // FRAME
      case '(': marks_.push_back(stack_.size()); return;
      case 'N': push(Kind::none); return;
      case 0x88: push_integer(Kind::boolean, 1); return;
      case 0x89: push_integer(Kind::boolean, 0); return;
      case 'K': push_integer(Kind::integer, u8()); return;
      case 'M': push_integer(Kind::integer, static_cast<std::int64_t>(unsigned_number(2))); return;
      case 'J': push_integer(Kind::integer, static_cast<std::int32_t>(unsigned_number(4))); return;
      case 0x8a: long_integer(); return;
      case 'G': real(); return;
      case 'X': push_text(Kind::text, text(unsigned_number(4))); return;
      case 0x8c: push_text(Kind::text, text(u8())); return;
      case 0x8d: push_text(Kind::text, text(unsigned_number(8))); return;
      case ')': push(Kind::tuple); return;
      case ']': push(Kind::list); return;
      case '}': push(Kind::dict); return;
      case 't': push_tuple(pop_to_mark()); return;
      case 0x85: push_tuple(std::size_t{1}); return;
      case 0x86: push_tuple(std::size_t{2}); return;
      case 0x87: push_tuple(std::size_t{3}); return;
      case 'a': {
        const PickleRef item = pop();
        append(top(), Kind::list, {item});
        return;
      }
      case 'e': {
        const std::vector<PickleRef> items = pop_to_mark();
        append(top(), Kind::list, items);
        return;
      }
      case 's': {
        const PickleRef item = pop(), key = pop();
        append(top(), Kind::dict, {key, item});
        return;
      }
      case 'u': {
        const std::vector<PickleRef> items = pop_to_mark();
        append(top(), Kind::dict, items);
        return;
      }
      default: step_reference(op);
    }
  }

  void step_reference(std::uint8_t op) {
    switch (op) {
      case 'q': memo_[u8()] = top(); return;
      case 'r': memo_[unsigned_number(4)] = top(); return;
      case 0x94: {
        const std::uint64_t place = memo_.size();
        memo_[place] = top();
        return;
      }
      case 'h': recall(u8()); return;
      case 'j': recall(unsigned_number(4)); return;
      case 'c': {
        const std::string module = line();
        global(module + " " + line());
        return;
      }
      case 0x93: {
        const PickleRef name = pop(), module = pop();
        if (value(name).kind != Kind::text || value(module).kind != Kind::text) fail("a global that is not named by texts");
        global(value(module).text + " " + value(name).text);
        return;
      }
      case 'Q': storage(pop()); return;
      case 'R': reduce(); return;
      case 0x81: new_object(); return;
      case 'b': build(); return;
      default: fail("the pickle opcode " + std::to_string(op) + " is not one that tensors need");
    }
  }

  void long_integer() {
    const std::uint8_t width = u8();
    if (width > 8) fail("an integer of " + std::to_string(width) + " bytes");
    std::uint64_t n = unsigned_number(width);
    if (width > 0 && width < 8 && (n >> (8 * width - 1)) != 0) n |= ~std::uint64_t{0} << (8 * width);  // the sign
    push_integer(Kind::integer, static_cast<std::int64_t>(n));
  }
  void real() {
    std::uint64_t bits = 0;
    const char* p = take(8);
    for (int i = 0; i < 8; ++i) bits = bits << 8 | static_cast<std::uint8_t>(p[i]);  // big endian
    PickleValue v;
    v.kind = Kind::real;
    v.real = std::bit_cast<double>(bits);
    push(std::move(v));
  }
  void recall(std::uint64_t place) {
    const auto it = memo_.find(place);
    if (it == memo_.end()) fail("a reference to nothing");
    stack_.push_back(it->second);
  }

  void global(std::string name) {
    if (name.size() > kLongestText) fail("a class with a name of " + std::to_string(name.size()) + " bytes");  // copied with every use
    if (!is_among(name, kRebuildTensor) && !is_among(name, kFirstArgument) && name != kOrderedDict && storage_class(name).empty() &&
        !is_script_class(name) && !is_among(name, kDTypes)) {
      for (char& c : name) c = c == ' ' ? '.' : static_cast<unsigned char>(c) < 32 ? '?' : c;
      fail("it names '" + name.substr(0, 100) + "', which is none of the classes of PyTorch's tensors and would have to be executed");
    }
    push_text(Kind::global, std::move(name));
  }

  // ('storage', torch.FloatStorage, '0', 'cpu', 7)
  void storage(PickleRef id) {
    const PickleValue& t = value(id);
    if (t.kind != Kind::tuple || t.items.size() != 5) fail("a persistent id that is no storage");
    const PickleValue &word = value(t.items[0]), &type = value(t.items[1]), &key = value(t.items[2]), &count = value(t.items[4]);
    if (word.kind != Kind::text || word.text != "storage" || type.kind != Kind::global || storage_class(type.text).empty() ||
        key.kind != Kind::text || count.kind != Kind::integer || count.integer < 0) {
      fail("a persistent id that is no storage");
    }
    if (key.text.size() > kLongestText) fail("a storage with a name of " + std::to_string(key.text.size()) + " bytes");
    PickleValue out;
    out.kind = Kind::storage;
    out.text = storage_class(type.text);
    out.items = {t.items[2]};
    out.integer = count.integer;
    push(std::move(out));
  }

  std::vector<std::int64_t> integers(PickleRef i) {
    const PickleValue& v = value(i);
    if (v.kind != Kind::tuple && v.kind != Kind::list) fail("a shape that is no tuple");
    std::vector<std::int64_t> out;
    for (const PickleRef item : v.items) {
      if (value(item).kind != Kind::integer || value(item).integer < 0) fail("a shape with something that is no size");
      out.push_back(value(item).integer);
    }
    return out;
  }

  void reduce() {
    const PickleRef arguments = pop(), function = pop();
    if (value(function).kind != Kind::global || value(arguments).kind != Kind::tuple) fail("a call of something that is no function");
    const std::string name = value(function).text;
    const std::vector<PickleRef> a = value(arguments).items;
    spend(a.size());
    if (is_among(name, kRebuildTensor)) {
      tensor(a);
    } else if (name == kOrderedDict) {
      ordered_dict(a);
    } else if (is_among(name, kFirstArgument) && !a.empty()) {
      stack_.push_back(a[0]);
    } else {
      fail("a call of '" + name + "'");
    }
  }

  void tensor(const std::vector<PickleRef>& a) {
    if (a.size() < 4 || value(a[0]).kind != Kind::storage || value(a[1]).kind != Kind::integer || value(a[1]).integer < 0) {
      fail("a tensor without storage, offset, shape and strides");
    }
    // The seventh is torch's metadata: numbers are stored with the other sign where it names the negative bit.
    if (a.size() > 6 && value(a[6]).kind == Kind::dict && !value(a[6]).items.empty()) fail("a tensor with a negative or conjugate bit");
    PickleValue out;
    out.kind = Kind::tensor;
    out.items = {a[0]};
    out.integer = value(a[1]).integer;
    out.shape = integers(a[2]);
    out.strides = integers(a[3]);
    if (out.shape.size() != out.strides.size()) fail("a tensor with more sizes than strides, or fewer");
    push(std::move(out));
  }

  void ordered_dict(const std::vector<PickleRef>& a) {
    PickleValue out;
    out.kind = Kind::dict;
    if (!a.empty()) {
      for (const PickleRef pair : value(a[0]).items) {
        if (value(pair).items.size() != 2) fail("an OrderedDict of something that is no pair");
        out.items.insert(out.items.end(), value(pair).items.begin(), value(pair).items.end());
      }
    }
    push(std::move(out));
  }

  void new_object() {
    pop();  // its arguments
    const PickleRef type = pop();
    const std::string name = value(type).text;
    if (value(type).kind != Kind::global || (!is_script_class(name) && name != kOrderedDict)) fail("an object of '" + name + "'");
    if (name == kOrderedDict) return push(Kind::dict);
    push_text(Kind::object, name);
  }

  void build() {
    const PickleRef state = pop(), object = top();
    if (value(object).kind == Kind::dict) return;  // attributes of an OrderedDict, such as _metadata
    if (value(object).kind != Kind::object || value(state).kind != Kind::dict) fail("a state for something that is no module");
    const std::vector<PickleRef> items = value(state).items;
    spend(items.size());
    value(object).items = items;
  }

  std::string_view bytes_;
  const std::string& source_;
  std::size_t at_ = 0, spent_ = 0;
  Pickle out_;
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, PickleRef> memo_;
};

}  // namespace

Pickle read_pickle(std::string_view bytes, const std::string& source) { return Machine(bytes, source).run(); }

}  // namespace twinlens
