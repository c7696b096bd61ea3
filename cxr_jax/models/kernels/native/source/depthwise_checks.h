// What depthwise convolutions of all windows are asked before they are computed.
#ifndef CXR_JAX_DEPTHWISE_CHECKS_H_
#define CXR_JAX_DEPTHWISE_CHECKS_H_

#include <algorithm>

#include "buffers.h"
#include "depthwise.h"

namespace cxr {
namespace {

DepthwiseShape depthwise_shape(const Dimensions& in, const Dimensions& out, int64_t stride, int64_t top, int64_t left) {
  return {in[0], in[1], in[2], in[3], out[1], out[2], stride, top, left};
}

// What keeps depthwise kernels with windows of so many pixels a side inside of their buffers.
Error check_places(const Dimensions& in, const Dimensions& out, const Dimensions& window, int64_t side,
                   int64_t stride, int64_t top, int64_t left) {
  if (stride != 1 && stride != 2) return "depthwise strides have to be 1 or 2";
  if (std::min(top, left) < 0 || std::max(top, left) >= side) {
    return "depthwise padding has to be less than a window";
  }
  const bool belong = in[0] == out[0] && in[3] == out[3] && window.count() == side * side * in[3];
  return belong ? Error() : Error(kSizesDiffer);
}

}  // namespace
}  // namespace cxr

#endif  // CXR_JAX_DEPTHWISE_CHECKS_H_
