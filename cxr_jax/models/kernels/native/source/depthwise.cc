// What XLA calls for depthwise convolutions.
//
// What would have a kernel leave its buffers is refused here, as in the other units.
#include "any_depthwise_handlers.h"
#include "buffers.h"
#include "depthwise.h"

namespace cxr {
namespace {

ffi::Error check_depthwise(const Dimensions& in, const Dimensions& out, const Parameters& kernel, int64_t stride,
                           int64_t top, int64_t left) {
  const auto window = kernel.dimensions();
  if (window.size() < 2 || window[0] != kWindow || window[1] != kWindow) {
    return ffi::Error::InvalidArgument("depthwise windows have to be 3 x 3");
  }
  if (in[3] % kLanes != 0) return ffi::Error::InvalidArgument("depthwise channels have to fill whole vectors");
  return check_places(in, out, kernel, kWindow, stride, top, left);
}

ffi::Error depthwise(Pool pool, Values x, Parameters kernel, Parameters offset, NewValues y, int64_t activation,
                     int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y->dimensions();
  if (auto error = check_depthwise(in, out, kernel, stride, top, left); error.failure()) return error;
  if (!all_have(in[3], offset)) return sizes_differ();
  const auto shape = depthwise_shape(in, out, stride, top, left);
  with_activation(activation, [&](auto kind) {
    depthwise_forward<kind()>(pool, shape, data(x), kernel.typed_data(), offset.typed_data(), data(y));
  });
  return ffi::Error::Success();
}

ffi::Error depthwise_input(Pool pool, Values g, Parameters kernel, NewValues x, int64_t stride, int64_t top,
                           int64_t left) {
  const auto in = x->dimensions(), out = g.dimensions();
  if (auto error = check_depthwise(in, out, kernel, stride, top, left); error.failure()) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  depthwise_input_gradient(pool, shape, data(g), kernel.typed_data(), data(x));
  return ffi::Error::Success();
}

ffi::Error depthwise_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t stride, int64_t top,
                            int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (auto error = check_depthwise(in, out, *kernel, stride, top, left); error.failure()) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  depthwise_kernel_gradient(pool, shape, data(x), data(g), kernel->typed_data());
  return ffi::Error::Success();
}

ffi::Error normalised_depthwise(Pool pool, Values x, Parameters kernel, Parameters factor, Parameters offset,
                                NewValues y, int64_t activation, int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y->dimensions();
  if (auto error = check_depthwise(in, out, kernel, stride, top, left); error.failure()) return error;
  if (auto error = check_normalisation(x, factor, offset); error.failure()) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  const std::vector<float> nothing(in[3]);
  depthwise_forward<Activation::kNone>(pool, depthwise_shape(in, out, stride, top, left), data(x), kernel.typed_data(),
                                       nothing.data(), data(y), &normalisation);
  return ffi::Error::Success();
}

ffi::Error normalised_depthwise_kernel(Pool pool, Values x, Values g, Parameters factor, Parameters offset,
                                       NewParameters kernel, int64_t activation, int64_t stride, int64_t top,
                                       int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (auto error = check_depthwise(in, out, *kernel, stride, top, left); error.failure()) return error;
  if (auto error = check_normalisation(x, factor, offset); error.failure()) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  depthwise_kernel_gradient(pool, depthwise_shape(in, out, stride, top, left), data(x), data(g), kernel->typed_data(),
                            &normalisation);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_depthwise, depthwise,
    CXR_BIND.Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION.CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_depthwise_input, depthwise_input,
                              CXR_BIND.Arg<Values>().Arg<Parameters>().Ret<Values>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_depthwise_kernel, depthwise_kernel,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Parameters>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_depthwise, normalised_depthwise,
    CXR_BIND.Arg<Values>().Arg<Parameters>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION
        .CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_depthwise_kernel, normalised_depthwise_kernel,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Parameters>().CXR_ACTIVATION
        .CXR_WINDOW);

}  // namespace cxr
