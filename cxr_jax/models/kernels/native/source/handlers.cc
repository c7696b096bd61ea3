// What XLA calls: shapes are taken from the buffers, everything else from attributes.
//
// What would have a kernel leave its buffers is refused here.
#include "activated_handlers.h"
#include "any_depthwise_handlers.h"
#include "buffers.h"
#include "depthwise.h"
#include "kernel_gradient.h"
#include "loaded.h"
#include "normalisation.h"
#include "pooling_handlers.h"
#include "products.h"
#include "strided_gradient.h"

namespace cxr {
namespace {

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
      [shifts = shifts.data()](Floats value, Floats, int64_t channel) {
        const Floats centred = value - load(shifts + channel);
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
                    [kind, factors = factors.data(), offsets = offsets.data()](Floats value, Floats, int64_t channel) {
                      return activate<kind()>(value * load(factors + channel) + load(offsets + channel));
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
        [kind, factors = factors.data(), offsets = offsets.data(), means = means.data()](
            Floats value, Floats gradient, int64_t channel) {
          const Floats input = value * load(factors + channel) + load(offsets + channel);
          const Floats sloped = slope_times<kind()>(input, gradient);
          return Both{sloped, sloped * (value - load(means + channel))};
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
                    [kind, factors = factors.data(), offsets = offsets.data(), slopes = slopes.data(),
                     constants = constants.data()](Floats value, Floats gradient, int64_t channel) {
                      const Floats scale = load(factors + channel);
                      const Floats input = value * scale + load(offsets + channel);
                      return scale * slope_times<kind()>(input, gradient) + value * load(slopes + channel) +
                             load(constants + channel);
                    });
  });
  return ffi::Error::Success();
}

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

// What a convolution is to apply to `x` while it loads it; refused where it would read beyond the parameters.
Normalisation normalisation_of(const Parameters& factor, const Parameters& offset, int64_t activation) {
  return {factor.typed_data(), offset.typed_data(), static_cast<int64_t>(factor.element_count()),
          static_cast<Activation>(activation)};
}

ffi::Error check_normalisation(const Values& x, const Parameters& factor, const Parameters& offset) {
  const int64_t channels = x.dimensions()[3];
  if (!all_have(channels, factor, offset)) return sizes_differ();
  if (channels % kLanes != 0) return ffi::Error::InvalidArgument("normalised channels have to fill whole vectors");
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_depthwise, normalised_depthwise,
    CXR_BIND.Arg<Values>().Arg<Parameters>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION
        .CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_depthwise_kernel, normalised_depthwise_kernel,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Parameters>().CXR_ACTIVATION
        .CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_convolution, normalised_convolution,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Values>().CXR_ACTIVATION.CXR_WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_normalised_convolution_kernel, normalised_convolution_kernel,
    CXR_BIND.Arg<Values>().Arg<Values>().Arg<Parameters>().Arg<Parameters>().Ret<Parameters>().CXR_ACTIVATION
        .CXR_WINDOW);

}  // namespace cxr
