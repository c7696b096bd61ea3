// What XLA calls to pool.
#include "buffers.h"
#include "pooling.h"

namespace cxr {
namespace {

constexpr int64_t kMostTaps = 256;  // numbers of taps are whole in bfloat16 up to here

PoolingShape pooling_shape(const Dimensions& in, const Dimensions& out, int64_t window, int64_t stride, int64_t top,
                           int64_t left) {
  return {in[0], in[3], {in[1], out[1], window, stride, top}, {in[2], out[2], window, stride, left}};
}

// What keeps windows inside of their buffers, and gives every window a pixel.
Error check_pooling(const Dimensions& in, const Dimensions& out, const PoolingShape& shape) {
  if (in[0] != out[0] || in[3] != out[3]) return kSizesDiffer;
  for (const PooledAxis& axis : {shape.rows, shape.columns}) {
    if (axis.window < 1 || axis.stride < 1 || axis.window * axis.window > kMostTaps) {
      return "pooling needs windows of 1 to 16 pixels and a stride";
    }
    if (axis.before < 0 || axis.before >= axis.window || (axis.windows - 1) * axis.stride - axis.before >= axis.length) {
      return "every window has to meet the image";
    }
  }
  return {};
}

Error max_pool_largest(Pool pool, Values x, NewValues y, int64_t window, int64_t stride, int64_t top,
                            int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), y.dimensions(), window, stride, top, left);
  if (Error error = check_pooling(x.dimensions(), y.dimensions(), shape)) return error;
  max_pool<false>(pool, shape, x.data(), y.data(), nullptr);
  return {};
}

Error max_pool_places(Pool pool, Values x, NewValues y, NewValues places, int64_t window, int64_t stride,
                           int64_t top, int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), y.dimensions(), window, stride, top, left);
  if (Error error = check_pooling(x.dimensions(), y.dimensions(), shape)) return error;
  if (!all_have(y.count(), places)) return kSizesDiffer;
  max_pool<true>(pool, shape, x.data(), y.data(), places.data());
  return {};
}

Error max_pool_input(Pool pool, Values g, Values places, NewValues x, int64_t window, int64_t stride, int64_t top,
                          int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), g.dimensions(), window, stride, top, left);
  if (Error error = check_pooling(x.dimensions(), g.dimensions(), shape)) return error;
  if (!all_have(g.count(), places)) return kSizesDiffer;
  max_pool_gradient(pool, shape, g.data(), places.data(), x.data());
  return {};
}

Error average_pool_means(Pool pool, Values x, NewValues y, int64_t counts_padding, int64_t window, int64_t stride,
                              int64_t top, int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), y.dimensions(), window, stride, top, left);
  if (Error error = check_pooling(x.dimensions(), y.dimensions(), shape)) return error;
  average_pool(pool, shape, counts_padding != 0, x.data(), y.data());
  return {};
}

Error average_pool_input(Pool pool, Values g, NewValues x, int64_t counts_padding, int64_t window, int64_t stride,
                              int64_t top, int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), g.dimensions(), window, stride, top, left);
  if (Error error = check_pooling(x.dimensions(), g.dimensions(), shape)) return error;
  average_pool_gradient(pool, shape, counts_padding != 0, g.data(), x.data());
  return {};
}

}  // namespace

#define CXR_POOLED "window", CXR_WINDOW

CXR_HANDLER(max_pool, max_pool_largest, CXR_POOLED)
CXR_HANDLER(max_pool_places, max_pool_places, CXR_POOLED)
CXR_HANDLER(max_pool_input, max_pool_input, CXR_POOLED)
CXR_HANDLER(average_pool, average_pool_means, "counts_padding", CXR_POOLED)
CXR_HANDLER(average_pool_input, average_pool_input, "counts_padding", CXR_POOLED)

}  // namespace cxr
