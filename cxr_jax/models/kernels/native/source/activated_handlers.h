// What XLA calls for convolutions with a bias.
#ifndef CXR_JAX_ACTIVATED_HANDLERS_H_
#define CXR_JAX_ACTIVATED_HANDLERS_H_

#include "activated.h"
#include "buffers.h"

namespace cxr {
namespace {

Error activated_input(Pool pool, Values y, Values g, NewValues of_input, NewParameters sums, int64_t activation) {
  const int64_t channels = y.dimensions()[3], pixels = y.count() / std::max<int64_t>(1, channels);
  if (!all_have(y.count(), g, of_input) || !all_have(channels, sums)) return kSizesDiffer;
  if (static_cast<Activation>(activation) == Activation::kSilu) {
    return "the slope of silu is not known from its result";
  }
  with_activation(activation, [&](auto kind) {
    if constexpr (kind() != Activation::kSilu) {
      activated_gradient<kind()>(pool, pixels, channels, y.data(), g.data(), of_input.data(), sums.data());
    }
  });
  return {};
}

}  // namespace

CXR_HANDLER(activated_input, activated_input, "activation")

}  // namespace cxr

#endif  // CXR_JAX_ACTIVATED_HANDLERS_H_
