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
ffi::Error check_pooling(const Dimensions& in, const Dimensions& out, const PoolingShape& shape) {
  if (in[0] != out[0] || in[3] != out[3]) return sizes_differ();
  for (const PooledAxis& axis : {shape.rows, shape.columns}) {
    if (axis.window < 1 || axis.stride < 1 || axis.window * axis.window > kMostTaps) {
      return ffi::Error::InvalidArgument("pooling needs windows of 1 to 16 pixels and a stride");
    }
    if (axis.before < 0 || axis.before >= axis.window || (axis.windows - 1) * axis.stride - axis.before >= axis.length) {
      return ffi::Error::InvalidArgument("every window has to meet the image");
    }
  }
  return ffi::Error::Success();
}

ffi::Error max_pool_largest(Pool pool, Values x, NewValues y, int64_t window, int64_t stride, int64_t top,
                            int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), y->dimensions(), window, stride, top, left);
  if (auto error = check_pooling(x.dimensions(), y->dimensions(), shape); error.failure()) return error;
  max_pool<false>(pool, shape, data(x), data(y), nullptr);
  return ffi::Error::Success();
}

ffi::Error max_pool_places(Pool pool, Values x, NewValues y, NewValues places, int64_t window, int64_t stride,
                           int64_t top, int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), y->dimensions(), window, stride, top, left);
  if (auto error = check_pooling(x.dimensions(), y->dimensions(), shape); error.failure()) return error;
  if (!all_have(y->element_count(), *places)) return sizes_differ();
  max_pool<true>(pool, shape, data(x), data(y), data(places));
  return ffi::Error::Success();
}

ffi::Error max_pool_input(Pool pool, Values g, Values places, NewValues x, int64_t window, int64_t stride, int64_t top,
                          int64_t left) {
  const auto shape = pooling_shape(x->dimensions(), g.dimensions(), window, stride, top, left);
  if (auto error = check_pooling(x->dimensions(), g.dimensions(), shape); error.failure()) return error;
  if (!all_have(g.element_count(), places)) return sizes_differ();
  max_pool_gradient(pool, shape, data(g), data(places), data(x));
  return ffi::Error::Success();
}

ffi::Error average_pool_means(Pool pool, Values x, NewValues y, int64_t counts_padding, int64_t window, int64_t stride,
                              int64_t top, int64_t left) {
  const auto shape = pooling_shape(x.dimensions(), y->dimensions(), window, stride, top, left);
  if (auto error = check_pooling(x.dimensions(), y->dimensions(), shape); error.failure()) return error;
  average_pool(pool, shape, counts_padding != 0, data(x), data(y));
  return ffi::Error::Success();
}

ffi::Error average_pool_input(Pool pool, Values g, NewValues x, int64_t counts_padding, int64_t window, int64_t stride,
                              int64_t top, int64_t left) {
  const auto shape = pooling_shape(x->dimensions(), g.dimensions(), window, stride, top, left);
  if (auto error = check_pooling(x->dimensions(), g.dimensions(), shape); error.failure()) return error;
  average_pool_gradient(pool, shape, counts_padding != 0, data(g), data(x));
  return ffi::Error::Success();
}

}  // namespace

#define CXR_POOLED Attr<int64_t>("window").CXR_WINDOW

XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_max_pool, max_pool_largest, CXR_BIND.Arg<Values>().Ret<Values>().CXR_POOLED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_max_pool_places, max_pool_places,
                              CXR_BIND.Arg<Values>().Ret<Values>().Ret<Values>().CXR_POOLED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(cxr_jax_max_pool_input, max_pool_input,
                              CXR_BIND.Arg<Values>().Arg<Values>().Ret<Values>().CXR_POOLED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_average_pool, average_pool_means,
    CXR_BIND.Arg<Values>().Ret<Values>().Attr<int64_t>("counts_padding").CXR_POOLED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cxr_jax_average_pool_input, average_pool_input,
    CXR_BIND.Arg<Values>().Ret<Values>().Attr<int64_t>("counts_padding").CXR_POOLED);

}  // namespace cxr
