// The arrays that handlers are given, and how handlers are made known.
//
// Activations and their gradients are bfloat16, parameters, statistics and their gradients float32.
#ifndef CXR_JAX_BUFFERS_H_
#define CXR_JAX_BUFFERS_H_

#include <type_traits>

#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace cxr {

namespace ffi = xla::ffi;

using Pool = ffi::ThreadPool;
using Values = ffi::BufferR4<ffi::BF16>;
using Parameters = ffi::Buffer<ffi::F32>;
using NewValues = ffi::ResultBufferR4<ffi::BF16>;
using NewParameters = ffi::ResultBuffer<ffi::F32>;

inline const BFloat16* data(const Values& buffer) { return static_cast<const BFloat16*>(buffer.untyped_data()); }
inline BFloat16* data(NewValues& buffer) { return static_cast<BFloat16*>(buffer->untyped_data()); }

// True if each of `buffers` has `count` values.
template <typename... Buffers>
bool all_have(int64_t count, const Buffers&... buffers) {
  return (... && (static_cast<int64_t>(buffers.element_count()) == count));
}

inline ffi::Error sizes_differ() { return ffi::Error::InvalidArgument("the arrays do not belong together"); }

// Calls `work` with the activation as a type.
template <typename Work>
void with_activation(int64_t activation, const Work& work) {
  switch (static_cast<Activation>(activation)) {
    case Activation::kRelu6: return work(std::integral_constant<Activation, Activation::kRelu6>());
    case Activation::kSilu: return work(std::integral_constant<Activation, Activation::kSilu>());
    case Activation::kRelu: return work(std::integral_constant<Activation, Activation::kRelu>());
    default: return work(std::integral_constant<Activation, Activation::kNone>());
  }
}

using Dimensions = Values::Dimensions;

}  // namespace cxr

#define CXR_BIND ffi::Ffi::Bind().Ctx<Pool>()
#define CXR_WINDOW Attr<int64_t>("stride").Attr<int64_t>("top").Attr<int64_t>("left")
#define CXR_ACTIVATION Attr<int64_t>("activation")

#endif  // CXR_JAX_BUFFERS_H_
