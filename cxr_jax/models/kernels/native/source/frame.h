// What XLA calls handlers with, read by hand: XLA's own reader of its calls takes longer to compile than the kernels do.
#ifndef CXR_JAX_FRAME_H_
#define CXR_JAX_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "vectors.h"
#include "xla/ffi/api/c_api.h"

namespace cxr {

// What is wrong with a call; nothing by default. No bare pointer: the compilers take it that one is rarely null, and would
// save room where the kernels are called.
class Error {
 public:
  Error() = default;
  Error(const char* message) : message_(message) {}
  explicit operator bool() const { return __builtin_expect(message_ != nullptr, false); }
  const char* message() const { return message_; }

 private:
  const char* message_ = nullptr;
};

// The threads that XLA lends to a handler.
class Pool {
 public:
  explicit Pool(const XLA_FFI_CallFrame& call) : api_(call.api), context_(call.ctx) {}
  int64_t num_threads() const;  // 0 where XLA has none to lend
  // Calls `task(data)` in one of them, or at once where XLA has none to lend.
  void schedule(void (*task)(void*), void* data) const;

 private:
  void forget(XLA_FFI_Error* error) const;

  const XLA_FFI_Api* api_;
  XLA_FFI_ExecutionContext* context_;
};

class Dimensions {
 public:
  explicit Dimensions(const XLA_FFI_Buffer& buffer) : lengths_(buffer.dims), rank_(buffer.rank) {
    for (int64_t axis = 0; axis < rank_; ++axis) count_ *= lengths_[axis];
  }
  int64_t rank() const { return rank_; }
  int64_t count() const { return count_; }  // of all values
  int64_t operator[](int64_t axis) const { return lengths_[axis]; }

 private:
  const int64_t* lengths_;
  int64_t rank_, count_ = 1;
};

// An array of a call; its values are constant if it is an operand.
template <typename Value>
class Buffer {
 public:
  explicit Buffer(const XLA_FFI_Buffer& buffer) : dimensions_(buffer), data_(static_cast<Value*>(buffer.data)) {}
  const Dimensions& dimensions() const { return dimensions_; }
  int64_t count() const { return dimensions_.count(); }
  Value* data() const { return data_; }

 private:
  Dimensions dimensions_;
  Value* data_;
};

// Activations [B, H, W, C] and their gradients are bfloat16; parameters, statistics and their gradients float32.
using Values = Buffer<const BFloat16>;
using Parameters = Buffer<const float>;
using NewValues = Buffer<BFloat16>;
using NewParameters = Buffer<float>;

// What a parameter of a handler is. Operands come first, then results, and attributes last.
enum class Kind { kValues, kParameters, kNewValues, kNewParameters, kNumber };

// A call as the parameters of a handler, whose numbers have `names`.
class Frame {
 public:
  Frame(const XLA_FFI_CallFrame& call, const char* const* names) : call_(call), names_(names) {}

  // True if the call has just what parameters of `kinds` take.
  bool fits(const Kind* kinds, int64_t count) const;
  const XLA_FFI_Buffer& buffer(int64_t place) const {
    const int64_t operands = call_.args.size;
    void* const found = place < operands ? call_.args.args[place] : call_.rets.rets[place - operands];
    return *static_cast<const XLA_FFI_Buffer*>(found);
  }
  // The attribute at `place`; null if there is none or it is no such number.
  const int64_t* number(int64_t place) const;

 private:
  const XLA_FFI_CallFrame& call_;
  const char* const* names_;
};

template <typename Parameter>
struct Reader;

template <typename Value>
struct Reader<Buffer<Value>> {
  static constexpr bool holds_values = std::is_same_v<std::remove_const_t<Value>, BFloat16>;
  static constexpr Kind kind = std::is_const_v<Value> ? (holds_values ? Kind::kValues : Kind::kParameters)
                                                      : (holds_values ? Kind::kNewValues : Kind::kNewParameters);
  static Buffer<Value> read(const Frame& frame, int64_t place) { return Buffer<Value>(frame.buffer(place)); }
};

template <>
struct Reader<int64_t> {
  static constexpr Kind kind = Kind::kNumber;
  static int64_t read(const Frame& frame, int64_t place) { return *frame.number(place); }
};

// True if XLA asks which version of its interface a handler knows, and calls for nothing else; answers that.
bool asks_for_version(const XLA_FFI_CallFrame& call);

// What XLA is told of a call.
XLA_FFI_Error* told(const XLA_FFI_CallFrame& call, Error error);

// Calls `handler` with what XLA gave; `names` are those of its numbers.
template <typename... Parameters, size_t... kPlaces>
XLA_FFI_Error* answered(const XLA_FFI_CallFrame& call, Error (*handler)(Pool, Parameters...), const char* const* names,
                        std::index_sequence<kPlaces...>) {
  constexpr Kind kinds[] = {Reader<Parameters>::kind...};
  if (__builtin_expect(asks_for_version(call), false)) return nullptr;
  const Frame frame(call, names);
  // the compilers save room where a kernel is called if they take that for rare
  if (__builtin_expect(!frame.fits(kinds, sizeof...(Parameters)), false)) {
    return told(call, "the call is not one that this kernel knows");
  }
  return told(call, handler(Pool(call), Reader<Parameters>::read(frame, kPlaces)...));
}

template <size_t kNames, typename... Parameters>
XLA_FFI_Error* answered(const XLA_FFI_CallFrame& call, Error (*handler)(Pool, Parameters...),
                        const char* const (&names)[kNames]) {
  static_assert((0 + ... + (Reader<Parameters>::kind == Kind::kNumber)) == kNames - 1, "every number has a name");
  return answered(call, handler, names + 1, std::index_sequence_for<Parameters...>());
}

}  // namespace cxr

// Makes `handler` known as cxr_jax_NAME; the names of its numbers follow, in its order.
#define CXR_HANDLER(name, handler, ...)                                                                              \
  extern "C" __attribute__((visibility("default"))) XLA_FFI_Error* cxr_jax_##name(XLA_FFI_CallFrame* call) {         \
    static constexpr const char* names[] = {"", __VA_ARGS__};                                                        \
    return cxr::answered(*call, handler, names);                                                                     \
  }

#endif  // CXR_JAX_FRAME_H_
