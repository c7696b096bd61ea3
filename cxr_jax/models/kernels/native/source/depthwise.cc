// What XLA calls for depthwise convolutions with windows of three by three pixels.
//
// What would have a kernel leave its buffers is refused here, as in the other units.
#include "buffers.h"
#include "depthwise.h"
#include "depthwise_checks.h"

namespace cxr {
namespace {

Error check_depthwise(const Dimensions& in, const Dimensions& out, const Dimensions& window, int64_t stride,
                      int64_t top, int64_t left) {
  if (window.rank() < 2 || window[0] != kWindow || window[1] != kWindow) {
    return "depthwise windows have to be 3 x 3";
  }
  if (in[3] % kLanes != 0) return "depthwise channels have to fill whole vectors";
  return check_places(in, out, window, kWindow, stride, top, left);
}

Error depthwise(Pool pool, Values x, Parameters kernel, Parameters offset, NewValues y, int64_t activation,
                     int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y.dimensions();
  if (Error error = check_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  if (!all_have(in[3], offset)) return kSizesDiffer;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  with_activation(activation, [&](auto kind) {
    depthwise_forward<kind()>(pool, shape, x.data(), kernel.data(), offset.data(), y.data());
  });
  return {};
}

Error depthwise_input(Pool pool, Values g, Parameters kernel, NewValues x, int64_t stride, int64_t top,
                           int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  depthwise_input_gradient(pool, shape, g.data(), kernel.data(), x.data());
  return {};
}

Error depthwise_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t stride, int64_t top,
                            int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  depthwise_kernel_gradient(pool, shape, x.data(), g.data(), kernel.data());
  return {};
}

Error normalised_depthwise(Pool pool, Values x, Parameters kernel, Parameters factor, Parameters offset,
                                NewValues y, int64_t activation, int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y.dimensions();
  if (Error error = check_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  if (Error error = check_normalisation(x, factor, offset)) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  const std::vector<float> nothing(in[3]);
  depthwise_forward<Activation::kNone>(pool, depthwise_shape(in, out, stride, top, left), x.data(), kernel.data(),
                                       nothing.data(), y.data(), &normalisation);
  return {};
}

Error normalised_depthwise_kernel(Pool pool, Values x, Values g, Parameters factor, Parameters offset,
                                       NewParameters kernel, int64_t activation, int64_t stride, int64_t top,
                                       int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  if (Error error = check_normalisation(x, factor, offset)) return error;
  const auto normalisation = normalisation_of(factor, offset, activation);
  depthwise_kernel_gradient(pool, depthwise_shape(in, out, stride, top, left), x.data(), g.data(), kernel.data(),
                            &normalisation);
  return {};
}

}  // namespace

CXR_HANDLER(depthwise, depthwise, "activation", CXR_WINDOW)
CXR_HANDLER(depthwise_input, depthwise_input, CXR_WINDOW)
CXR_HANDLER(depthwise_kernel, depthwise_kernel, CXR_WINDOW)
CXR_HANDLER(normalised_depthwise, normalised_depthwise, "activation", CXR_WINDOW)
CXR_HANDLER(normalised_depthwise_kernel, normalised_depthwise_kernel, "activation", CXR_WINDOW)

}  // namespace cxr
