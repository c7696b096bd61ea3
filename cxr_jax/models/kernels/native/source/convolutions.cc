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
ConvolutionShape convolution_shape(const Dimensions& in, const Dimensions& out, const Dimensions& window,
                                   int64_t stride, int64_t top, int64_t left) {
  return {in[0], in[1], in[2], in[3], out[1], out[2], out[3], window[0], window[1], stride, top, left};
}

// What keeps the convolution's kernels inside of their buffers; its images may be of any size beside each other.
Error check_convolution(const Dimensions& in, const Dimensions& out, const Dimensions& window, int64_t stride) {
  if (window.rank() != 4 || window[2] != in[3] || window[3] != out[3] || in[0] != out[0]) return kSizesDiffer;
  if (std::min({window[0], window[1], stride}) < 1) {
    return "windows and strides have to be 1 at least";
  }
  return {};
}

Error convolution(Pool pool, Values x, Values kernel, Parameters offset, NewValues y, int64_t activation,
                       int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y.dimensions();
  if (Error error = check_convolution(in, out, kernel.dimensions(), stride)) return error;
  if (!all_have(out[3], offset)) return kSizesDiffer;
  const auto shape = convolution_shape(in, out, kernel.dimensions(), stride, top, left);
  const PackedKernel packed(pool, kernel.data(), shape.taps(), shape.inputs, shape.outputs,
                            shape.inputs * shape.outputs, shape.outputs, 1, false);
  with_activation(activation, [&](auto kind) {
    convolve<kind()>(pool, shape, x.data(), packed, offset.data(), y.data());
  });
  return {};
}

Error check_pointwise(const ConvolutionShape& shape) {
  return shape.is_pointwise() ? Error() : Error("normalised windows have to be 1 x 1");
}

Error normalised_convolution(Pool pool, Values x, Values kernel, Parameters factor, Parameters offset, NewValues y,
                                  int64_t activation, int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y.dimensions();
  if (Error error = check_convolution(in, out, kernel.dimensions(), stride)) return error;
  if (Error error = check_normalisation(x, factor, offset)) return error;
  const auto shape = convolution_shape(in, out, kernel.dimensions(), stride, top, left);
  if (Error error = check_pointwise(shape)) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  const PackedKernel packed(pool, kernel.data(), 1, shape.inputs, shape.outputs, shape.inputs * shape.outputs,
                            shape.outputs, 1, false);
  convolve<Activation::kNone>(pool, shape, x.data(), packed, nullptr, y.data(), &normalisation);
  return {};
}

Error normalised_convolution_kernel(Pool pool, Values x, Values g, Parameters factor, Parameters offset,
                                         NewParameters kernel, int64_t activation, int64_t stride, int64_t top,
                                         int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_convolution(in, out, kernel.dimensions(), stride)) return error;
  if (Error error = check_normalisation(x, factor, offset)) return error;
  const auto shape = convolution_shape(in, out, kernel.dimensions(), stride, top, left);
  if (Error error = check_pointwise(shape)) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  kernel_gradient(pool, shape, x.data(), g.data(), kernel.data(), &normalisation);
  return {};
}

// Without a stride, the convolution of the output's gradient with the kernel turned round and its axes exchanged.
Error convolution_input(Pool pool, Values g, Values kernel, NewValues x, int64_t stride, int64_t top,
                             int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions(), window = kernel.dimensions();
  if (Error error = check_convolution(in, out, kernel.dimensions(), stride)) return error;
  if (stride > 1) {
    const auto shape = convolution_shape(in, out, kernel.dimensions(), stride, top, left);
    strided_input_gradient(pool, shape, g.data(), kernel.data(), x.data());
    return {};
  }
  const ConvolutionShape back = {out[0], out[1],    out[2],    out[3], in[1],               in[2],
                                 in[3],  window[0], window[1], 1,      window[0] - 1 - top, window[1] - 1 - left};
  const PackedKernel packed(pool, kernel.data(), back.taps(), back.inputs, back.outputs,
                            back.inputs * back.outputs, 1, back.inputs, true);
  convolve<Activation::kNone>(pool, back, g.data(), packed, nullptr, x.data());
  return {};
}

Error convolution_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t stride, int64_t top,
                              int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_convolution(in, out, kernel.dimensions(), stride)) return error;
  const auto shape = convolution_shape(in, out, kernel.dimensions(), stride, top, left);
  kernel_gradient(pool, shape, x.data(), g.data(), kernel.data());
  return {};
}

}  // namespace

CXR_HANDLER(convolution, convolution, "activation", CXR_WINDOW)
CXR_HANDLER(convolution_input, convolution_input, CXR_WINDOW)
CXR_HANDLER(convolution_kernel, convolution_kernel, CXR_WINDOW)
CXR_HANDLER(normalised_convolution, normalised_convolution, "activation", CXR_WINDOW)
CXR_HANDLER(normalised_convolution_kernel, normalised_convolution_kernel, "activation", CXR_WINDOW)

}  // namespace cxr
