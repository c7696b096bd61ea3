// What XLA calls: shapes are taken from the buffers, everything else from attributes.
//
// Activations and their gradients are bfloat16, parameters, statistics and their gradients float32. What would have a
// kernel leave its buffers is refused here.
#include <type_traits>

#include "depthwise.h"
#include "kernel_gradient.h"
#include "normalisation.h"
#include "products.h"
#include "xla/ffi/api/ffi.h"

namespace cxr {
namespace {

namespace ffi = xla::ffi;

using Pool = ffi::ThreadPool;
using Values = ffi::BufferR4<ffi::BF16>;
using Parameters = ffi::Buffer<ffi::F32>;
using NewValues = ffi::ResultBufferR4<ffi::BF16>;
using NewParameters = ffi::ResultBuffer<ffi::F32>;

const BFloat16* data(const Values& buffer) { return static_cast<const BFloat16*>(buffer.untyped_data()); }
BFloat16* data(NewValues& buffer) { return static_cast<BFloat16*>(buffer->untyped_data()); }

// True if each of `buffers` has `count` values.
template <typename... Buffers>
bool all_have(int64_t count, const Buffers&... buffers) {
  return (... && (static_cast<int64_t>(buffers.element_count()) == count));
}

ffi::Error sizes_differ() { return ffi::Error::InvalidArgument("the arrays do not belong together"); }

// Calls `work` with the activation as a type.
template <typename Work>
void with_activation(int64_t activation, const Work& work) {
  switch (static_cast<Activation>(activation)) {
    case Activation::kRelu6: return work(std::integral_constant<Activation, Activation::kRelu6>());
    case Activation::kSilu: return work(std::integral_constant<Activation, Activation::kSilu>());
    default: return work(std::integral_constant<Activation, Activation::kNone>());
  }
}

// An image's pixels as one list, and the parameters of their channels as vectors need them.
struct Channels {
  int64_t pixels, count;
  Groups groups;
  explicit Channels(const Values& x)
      : pixels(x.element_count() / x.dimensions().back()), count(x.dimensions().back()),
        groups(groups_of(pixels, count)) {}
  std::vector<float> repeat(const Parameters& values) const { return repeated(values.typed_data(), count, groups); }

  template <typename... Buffers>
  bool fit(const Buffers&... parameters) const {
    return all_have(count, parameters...);
  }
};

ffi::Error statistics(Pool pool, Values x, Parameters shift, NewParameters sums) {
  const Channels channels(x);
  if (!channels.fit(shift) || !all_have(2 * channels.count, *sums)) return sizes_differ();
  const auto shifts = channels.repeat(shift);
  sum_channels(
      pool, channels.pixels, channels.count, data(x), data(x),
      [&](Floats value, Floats, int64_t channel) {
        const Floats centred = value - load(shifts.data() + channel);
        return Both{centred, centred * centred};
      },
      sums->typed_data());
  return ffi::Error::Success();
}

ffi::Error normalise(Pool pool, Values x, Parameters factor, Parameters offset, NewValues y, int64_t activation) {
  const Channels channels(x);
  if (!channels.fit(factor, offset) || !all_have(x.element_count(), *y)) return sizes_differ();
  const auto factors = channels.repeat(factor), offsets = channels.repeat(offset);
  with_activation(activation, [&](auto kind) {
    change_channels(pool, channels.pixels, channels.count, data(x), data(x), data(y),
                    [&](Floats value, Floats, int64_t channel) {
                      return activate<kind()>(value * load(factors.data() + channel) + load(offsets.data() + channel));
                    });
  });
  return ffi::Error::Success();
}

ffi::Error normalise_gradient_sums(Pool pool, Values x, Values g, Parameters factor, Parameters offset, Parameters mean,
                                   NewParameters sums, int64_t activation) {
  const Channels channels(x);
  if (!channels.fit(factor, offset, mean) || !all_have(x.element_count(), g) || !all_have(2 * channels.count, *sums)) {
    return sizes_differ();
  }
  const auto factors = channels.repeat(factor), offsets = channels.repeat(offset), means = channels.repeat(mean);
  with_activation(activation, [&](auto kind) {
    sum_channels(
        pool, channels.pixels, channels.count, data(x), data(g),
        [&](Floats value, Floats gradient, int64_t channel) {
          const Floats input = value * load(factors.data() + channel) + load(offsets.data() + channel);
          const Floats sloped = slope_times<kind()>(input, gradient);
          return Both{sloped, sloped * (value - load(means.data() + channel))};
        },
        sums->typed_data());
  });
  return ffi::Error::Success();
}

ffi::Error normalise_gradient(Pool pool, Values x, Values g, Parameters factor, Parameters offset, Parameters slope,
                              Parameters constant, NewValues y, int64_t activation) {
  const Channels channels(x);
  if (!channels.fit(factor, offset, slope, constant) || !all_have(x.element_count(), g, *y)) return sizes_differ();
  const auto factors = channels.repeat(factor), offsets = channels.repeat(offset);
  const auto slopes = channels.repeat(slope), constants = channels.repeat(constant);
  with_activation(activation, [&](auto kind) {
    change_channels(pool, channels.pixels, channels.count, data(x), data(g), data(y),
                    [&](Floats value, Floats gradient, int64_t channel) {
                      const Floats scale = load(factors.data() + channel);
                      const Floats input = value * scale + load(offsets.data() + channel);
                      return scale * slope_times<kind()>(input, gradient) + value * load(slopes.data() + channel) +
                             load(constants.data() + channel);
                    });
  });
  return ffi::Error::Success();
}

using Dimensions = Values::Dimensions;

DepthwiseShape depthwise_shape(const Dimensions& in, const Dimensions& out, int64_t stride, int64_t top, int64_t left) {
  return {in[0], in[1], in[2], in[3], out[1], out[2], stride, top, left};
}

// What keeps the depthwise kernels inside of their buffers.
ffi::Error check_depthwise(const Dimensions& in, const Dimensions& out, const Parameters& kernel, int64_t window,
                           int64_t stride, int64_t top, int64_t left) {
  if (window != kWindow) return ffi::Error::InvalidArgument("depthwise windows have to be 3 x 3");
  if (stride != 1 && stride != 2) return ffi::Error::InvalidArgument("depthwise strides have to be 1 or 2");
  if (in[3] % kLanes != 0) return ffi::Error::InvalidArgument("depthwise channels have to fill whole vectors");
  if (std::min(top, left) < 0 || std::max(top, left) >= kWindow) {
    return ffi::Error::InvalidArgument("depthwise padding has to be less than a window");
  }
  const bool belong = in[0] == out[0] && in[3] == out[3] && all_have(kWindow * kWindow * in[3], kernel);
  return belong ? ffi::Error::Success() : sizes_differ();
}

ffi::Error depthwise(Pool pool, Values x, Parameters kernel, Parameters offset, NewValues y, int64_t activation,
                     int64_t window, int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y->dimensions();
  if (auto error = check_depthwise(in, out, kernel, window, stride, top, left); error.failure()) return error;
  if (!all_have(in[3], offset)) return sizes_differ();
  const auto shape = depthwise_shape(in, out, stride, top, left);
  with_activation(activation, [&](auto kind) {
    depthwise_forward<kind()>(pool, shape, data(x), kernel.typed_data(), offset.typed_data(), data(y));
  });
  return ffi::Error::Success();
}

ffi::Error depthwise_input(Pool pool, Values g, Parameters kernel, NewValues x, int64_t window, int64_t stride,
                           int64_t top, int64_t left) {
  const auto in = x->dimensions(), out = g.dimensions();
  if (auto error = check_depthwise(in, out, kernel, window, stride, top, left); error.failure()) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  depthwise_input_gradient(pool, shape, data(g), kernel.typed_data(), data(x));
  return ffi::Error::Success();
}

ffi::Error depthwise_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t window, int64_t stride,
                            int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (auto error = check_depthwise(in, out, *kernel, window, stride, top, left); error.failure()) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  depthwise_kernel_gradient(pool, shape, data(x), data(g), kernel->typed_data());
  return ffi::Error::Success();
}

// What keeps the convolution's kernels inside of their buffers; its images may be of any size beside each other.
template <typename Kernel>
ffi::Error check_convolution(const Dimensions& in, const Dimensions& out, const Kernel& kernel, int64_t window,
                             int64_t stride) {
  if (window < 1 || stride < 1) return ffi::Error::InvalidArgument("windows and strides have to be 1 at least");
  const bool belong = in[0] == out[0] && all_have(window * window * in[3] * out[3], kernel);
  return belong ? ffi::Error::Success() : sizes_differ();
}

ffi::Error convolution(Pool pool, Values x, Values kernel, Parameters offset, NewValues y, int64_t activation,
                       int64_t window, int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y->dimensions();
  if (auto error = check_convolution(in, out, kernel, window, stride); error.failure()) return error;
  if (!all_have(out[3], offset)) return sizes_differ();
  const ConvolutionShape shape = {in[0], in[1], in[2], in[3], out[1], out[2], out[3], window, stride, top, left, 1};
  const PackedKernel packed(data(kernel), shape.taps(), shape.inputs, shape.outputs, shape.inputs * shape.outputs,
                            shape.outputs, 1, false);
  with_activation(activation, [&](auto kind) {
    convolve<kind()>(pool, shape, data(x), packed, offset.typed_data(), data(y));
  });
  return ffi::Error::Success();
}

// The convolution of the output's gradient, spread out by the stride, with the kernel turned round and its axes
// exchanged.
ffi::Error convolution_input(Pool pool, Values g, Values kernel, NewValues x, int64_t window, int64_t stride,
                             int64_t top, int64_t left) {
  const auto in = g.dimensions(), out = x->dimensions();
  if (auto error = check_convolution(in, out, kernel, window, stride); error.failure()) return error;
  const ConvolutionShape shape = {in[0],  in[1],  in[2], in[3],            out[1],            out[2],
                                  out[3], window, 1,     window - 1 - top, window - 1 - left, stride};
  const PackedKernel packed(data(kernel), shape.taps(), shape.inputs, shape.outputs, shape.inputs * shape.outputs, 1,
                            shape.inputs, true);
  convolve<Activation::kNone>(pool, shape, data(g), packed, nullptr, data(x));
  return ffi::Error::Success();
}

ffi::Error convolution_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t window, int64_t stride,
                              int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (auto error = check_convolution(in, out, *kernel, window, stride); error.failure()) return error;
  const ConvolutionShape shape = {in[0], in[1], in[2], in[3], out[1], out[2], out[3], window, stride, top, left, 1};
  kernel_gradient(pool, shape, data(x), data(g), kernel->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#define CXR_BIND ffi::Ffi::Bind().Ctx<Pool>()
#define CXR_WINDOW Attr<int64_t>("window").Attr<int64_t>("stride").Attr<int64_t>("top").Attr<int64_t>("left")
#define CXR_ACTIVATION Attr<int64_t>("activation")

XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_statistics, statistics,
                              CXR_BIND.Arg<Values>().Arg<Parameters>().Ret<Parameters>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalise, normalise,
    CXR_BIND.Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalise_gradient_sums, normalise_gradient_sums,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Arg<Parameters>().Ret<Parameters>()
        .CXR_ACTIVATION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalise_gradient, normalise_gradient,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Arg<Parameters>().Arg<Parameters>()
        .Ret<Values>().CXR_ACTIVATION);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_depthwise, depthwise,
    CXR_BIND.Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION.CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_depthwise_input, depthwise_input,
                              CXR_BIND.Arg<Values>().Arg<Parameters>().Ret<Values>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_depthwise_kernel, depthwise_kernel,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Parameters>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_convolution, convolution,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION.CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_convolution_input, convolution_input,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Values>().CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_convolution_kernel, convolution_kernel,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Parameters>().CXR_WINDOW);

}  // namespace cxr
