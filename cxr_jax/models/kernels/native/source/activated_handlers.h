// What XLA calls for convolutions with a bias.
#ifndef CXR_JAX_ACTIVATED_HANDLERS_H_
#define CXR_JAX_ACTIVATED_HANDLERS_H_

#include "activated.h"
#include "buffers.h"

namespace cxr {
namespace {

ffi::Error activated_input(Pool pool, Values y, Values g, NewValues of_input, NewParameters sums, int64_t activation) {
  const int64_t channels = y.dimensions()[3], pixels = y.element_count() / std::max<int64_t>(1, channels);
  if (!all_have(y.element_count(), g, *of_input) || !all_have(channels, *sums)) return sizes_differ();
  if (static_cast<Activation>(activation) == Activation::kSilu) {
    return ffi::Error::InvalidArgument("the slope of silu is not known from its result");
  }
  with_activation(activation, [&](auto kind) {
    if constexpr (kind() != Activation::kSilu) {
      activated_gradient<kind()>(pool, pixels, channels, data(y), data(g), data(of_input), sums->typed_data());
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_activated_input, activated_input,
    CXR_BIND.Arg<Values>().Arg<Values>().Ret<Values>().Ret<Parameters>().CXR_ACTIVATION);

}  // namespace cxr

#endif  // CXR_JAX_ACTIVATED_HANDLERS_H_
