// What XLA calls for depthwise convolutions with windows of 3 or 5 pixels and any channels.
#include "any_depthwise.h"
#include "buffers.h"
#include "depthwise_checks.h"

namespace cxr {
namespace {

Error check_any_depthwise(const Dimensions& in, const Dimensions& out, const Dimensions& window, int64_t stride,
                          int64_t top, int64_t left) {
  if (window.rank() < 2 || window[0] != window[1] || (window[0] != 3 && window[0] != 5)) {
    return "depthwise windows have to be 3 x 3 or 5 x 5";
  }
  return check_places(in, out, window, window[0], stride, top, left);
}

// Calls `work` with the side of the window as a type.
template <typename Work>
void with_side(const Dimensions& window, const Work& work) {
  if (window[0] == 3) work(std::integral_constant<int, 3>());
  else work(std::integral_constant<int, 5>());
}

Error any_depthwise(Pool pool, Values x, Parameters kernel, Parameters offset, NewValues y, int64_t activation,
                         int64_t stride, int64_t top, int64_t left) {
  const auto in = x.dimensions(), out = y.dimensions();
  if (Error error = check_any_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  if (!all_have(in[3], offset)) return kSizesDiffer;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  with_side(kernel.dimensions(), [&](auto side) {
    with_activation(activation, [&](auto kind) {
      any_depthwise_forward<side(), kind()>(pool, shape, x.data(), kernel.data(), offset.data(), y.data());
    });
  });
  return {};
}

Error any_depthwise_input(Pool pool, Values g, Parameters kernel, NewValues x, int64_t stride, int64_t top,
                               int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_any_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  with_side(kernel.dimensions(), [&](auto side) {
    any_depthwise_input_gradient<side()>(pool, shape, g.data(), kernel.data(), x.data());
  });
  return {};
}

Error any_depthwise_kernel(Pool pool, Values x, Values g, NewParameters kernel, int64_t stride, int64_t top,
                                int64_t left) {
  const auto in = x.dimensions(), out = g.dimensions();
  if (Error error = check_any_depthwise(in, out, kernel.dimensions(), stride, top, left)) return error;
  const auto shape = depthwise_shape(in, out, stride, top, left);
  with_side(kernel.dimensions(), [&](auto side) {
    any_depthwise_kernel_gradient<side()>(pool, shape, x.data(), g.data(), kernel.data());
  });
  return {};
}

}  // namespace

CXR_HANDLER(any_depthwise, any_depthwise, "activation", CXR_WINDOW)
CXR_HANDLER(any_depthwise_input, any_depthwise_input, CXR_WINDOW)
CXR_HANDLER(any_depthwise_kernel, any_depthwise_kernel, CXR_WINDOW)

}  // namespace cxr
