// What XLA calls for whole inverted residual blocks.
//
// What would have a kernel leave its buffers is refused here, as in the other units.
#include "buffers.h"
#include "inverted_residual.h"

namespace cxr {
namespace {

Error check_block(const BlockShape& shape, const Dimensions& out) {
  if (shape.channels % kLanes != 0) return "wide channels have to fill whole vectors";
  if (shape.window != 3 && shape.window != 5) return "depthwise windows have to be 3 x 3 or 5 x 5";
  if (shape.stride != 1 && shape.stride != 2) return "depthwise strides have to be 1 or 2";
  if (std::min(shape.top, shape.left) < 0 || std::max(shape.top, shape.left) >= shape.window) {
    return "depthwise padding has to be less than a window";
  }
  return out[0] == shape.batch ? Error() : Error(kSizesDiffer);
}

Error inverted_residual_block(Pool pool, Values x, Parameters widening, Parameters widening_factor,
                              Parameters widening_offset, Parameters depthwise, Parameters depthwise_factor,
                              Parameters depthwise_offset, Parameters projecting, Parameters projecting_factor,
                              Parameters projecting_offset, NewValues y, int64_t activation, int64_t stride, int64_t top,
                              int64_t left, int64_t adds_input) {
  const auto in = x.dimensions(), out = y.dimensions(), window = depthwise.dimensions();
  if (window.rank() < 2 || window[0] != window[1]) return kSizesDiffer;
  const BlockShape shape = {in[0],  in[1],     in[2],  in[3], widening_factor.count(), out[1], out[2],
                            out[3], window[0], stride, top,   left};
  if (Error error = check_block(shape, out)) return error;
  const bool belong = all_have(shape.channels, widening_offset, depthwise_factor, depthwise_offset) &&
                      all_have(shape.outputs, projecting_factor, projecting_offset) &&
                      all_have(shape.inputs * shape.channels, widening) &&
                      all_have(shape.window * shape.window * shape.channels, depthwise) &&
                      all_have(shape.channels * shape.outputs, projecting);
  if (!belong || (adds_input && y.count() != x.count())) return kSizesDiffer;
  if (y.count() == 0) return {};
  with_activation(activation, [&](auto kind) {
    const ActivatedSteps steps = {widen<kind()>, shape.window == 3 ? filter<3, kind()> : filter<5, kind()>};
    inverted_residual(pool, shape, steps, x.data(), {widening.data(), widening_factor.data(), widening_offset.data()},
                      {depthwise.data(), depthwise_factor.data(), depthwise_offset.data()},
                      {projecting.data(), projecting_factor.data(), projecting_offset.data()}, adds_input != 0, y.data());
  });
  return {};
}

}  // namespace

CXR_HANDLER(inverted_residual, inverted_residual_block, "activation", CXR_WINDOW, "adds_input")

}  // namespace cxr
