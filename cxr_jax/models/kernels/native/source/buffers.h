// What handlers have in common.
#ifndef CXR_JAX_BUFFERS_H_
#define CXR_JAX_BUFFERS_H_

#include <type_traits>

#include "frame.h"
#include "vectors.h"

namespace cxr {

// True if each of `buffers` has `count` values.
template <typename... Buffers>
bool all_have(int64_t count, const Buffers&... buffers) {
  return (... && (buffers.count() == count));
}

constexpr const char* kSizesDiffer = "the arrays do not belong together";

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

}  // namespace cxr

#define CXR_WINDOW "stride", "top", "left"

#endif  // CXR_JAX_BUFFERS_H_
