// What XLA calls for convolutions that sum over channels.
//
// What would have a kernel leave its buffers is refused here, as in the other units.
#include "buffers.h"
#include "kernel_gradient.h"
#include "products.h"
#include "strided_gradient.h"

namespace cxr {
namespace {

// The shape of a convolution from `in` to `out`.
template <typename Kernel>
ConvolutionShape convolution_shape(const Dimensions& in, const Dimensions& out, const Kernel& kernel, int64_t stride,
                                   int64_t top, int64_t left) {
  const auto window = kernel.dimensions();
  return {in[0], in[1], in[2], in[3], out[1], out[2], out[3], window[0], window[1], stride, top, left};
}

// What keeps the convolution's kernels inside of their buffers; its images may be of any size beside each other.
template <typename Kernel>
ffi::Error check_convolution(const Dimensions& in, const Dimensions& out, const Kernel& kernel, int64_t stride) {
  const auto window = kernel.dimensions();
  if (window.size() != 4 || window[2] != in[3] || window[3] != out[3] || in[0] != out[0]) return sizes_differ();
  if (std::min({window[0], window[1], stride}) < 1) {
    return ffi::Error::InvalidArgument("windows and strides have to be 1 at least");
  }
  return ffi::Error::Success();
}

ffi::Error convolution(Pool pool, Values x, Values kernel, Parameters offset, NewValues y, int64_t activation,
                       int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y->dimensions();
  if (auto error = check_convolution(in, out, kernel, stride); error.failure()) return error;
  if (!all_have(out[3], offset)) return sizes_differ();
  const auto shape = convolution_shape(in, out, kernel, stride, top, left);
  const PackedKernel packed(data(kernel), shape.taps(), shape.inputs, shape.outputs, shape.inputs * shape.outputs,
                            shape.outputs, 1, false);
  with_activation(activation, [&](auto kind) {
    convolve<kind()>(pool, shape, data(x), packed, offset.typed_data(), data(y));
  });
  return ffi::Error::Success();
}

ffi::Error check_pointwise(const ConvolutionShape& shape) {
  return shape.is_pointwise() ? ffi::Error::Success()
                              : ffi::Error::InvalidArgument("normalised windows have to be 1 x 1");
}

ffi::Error normalised_convolution(Pool pool, Values x, Values kernel, Parameters factor, Parameters offset, NewValues y,
                                  int64_t activation, int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y->dimensions();
  if (auto error = check_convolution(in, out, kernel, stride); error.failure()) return error;
  if (auto error = check_normalisation(x, factor, offset); error.failure()) return error;
  const auto shape = convolution_shape(in, out, kernel, stride, top, left);
  if (auto error = check_pointwise(shape); error.failure()) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  const PackedKernel packed(data(kernel), 1, shape.inputs, shape.outputs, shape.inputs * shape.outputs, shape.outputs,
                            1, false);
  convolve<Activation::kNone>(pool, shape, data(x), packed, nullptr, data(y), &normalisation);
  return ffi::Error::Success();
}

ffi::Error normalised_convolution_kernel(Pool pool, Values x, Values g, Parameters factor, Parameters offset,
                                         NewParameters kernel, int64_t activation, int64_t stride, int64_t top,
                                         int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (auto error = check_convolution(in, out, *kernel, stride); error.failure()) return error;
  if (auto error = check_normalisation(x, factor, offset); error.failure()) return error;
  const auto shape = convolution_shape(in, out, *kernel, stride, top, left);
  if (auto error = check_pointwise(shape); error.failure()) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  kernel_gradient(pool, shape, data(x), data(g), kernel->typed_data(), &normalisation);
  return ffi::Error::Success();
}

// Without a stride, the convolution of the output's gradient with the kernel turned round and its axes exchanged.
ffi::Error convolution_input(Pool pool, Values g, Values kernel, NewValues x, int64_t stride, int64_t top,
                             int64_t left) {
  const auto in = x->dimensions(), out = g.dimensions(), window = kernel.dimensions();
  if (auto error = check_convolution(in, out, kernel, stride); error.failure()) return error;
  if (stride > 1) {
    const auto shape = convolution_shape(in, out, kernel, stride, top, left);
    strided_input_gradient(pool, shape, data(g), data(kernel), data(x));
    return ffi::Error::Success();
  }
  const ConvolutionShape back = {out[0], out[1],    out[2],    out[3], in[1],               in[2],
                                 in[3],  window[0], window[1], 1,      window[0] - 1 - top, window[1] - 1 - left};
  const PackedKernel packed(data(kernel), back.taps(), back.inputs, back.outputs, back.inputs * back.outputs, 1,
                            back.inputs, true);
  convolve<Activation::kNone>(pool, back, data(g), packed, nullptr, data(x));
  return ffi::Error::Success();
}

ffi::Error convolution_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t stride, int64_t top,
                              int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (auto error = check_convolution(in, out, *kernel, stride); error.failure()) return error;
  const auto shape = convolution_shape(in, out, *kernel, stride, top, left);
  kernel_gradient(pool, shape, data(x), data(g), kernel->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_convolution, convolution,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION.CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_convolution_input, convolution_input,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Values>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_convolution_kernel, convolution_kernel,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Parameters>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_convolution, normalised_convolution,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION.CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_convolution_kernel, normalised_convolution_kernel,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Parameters>().CXR_ACTIVATION
        .CXR_WINDOW);

}  // namespace cxr
