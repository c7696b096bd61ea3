// What XLA calls for BatchNorm with its activation, and for the bias of a convolution.
#include "activated_handlers.h"
#include "buffers.h"
#include "normalisation.h"

namespace cxr {
namespace {

// An image's pixels as one list, and the parameters of their channels as vectors need them.
struct Channels {
  int64_t pixels, count;
  Groups groups;
  explicit Channels(const Values& x)
      : pixels(x.count() / x.dimensions()[3]), count(x.dimensions()[3]),
        groups(groups_of(pixels, count)) {}
  std::vector<float> repeat(const Parameters& values) const { return repeated(values.data(), count, groups); }

  template <typename... Buffers>
  bool fit(const Buffers&... parameters) const {
    return all_have(count, parameters...);
  }
};

Error statistics(Pool pool, Values x, Parameters shift, NewParameters sums) {
  const Channels channels(x);
  if (!channels.fit(shift) || !all_have(2 * channels.count, sums)) return kSizesDiffer;
  const auto shifts = channels.repeat(shift);
  sum_channels(
      pool, channels.pixels, channels.count, x.data(), x.data(),
      [shifts = shifts.data()](Floats value, Floats, int64_t channel) {
        const Floats centred = value - load(shifts + channel);
        return Both{centred, centred * centred};
      },
      sums.data());
  return {};
}

Error normalise(Pool pool, Values x, Parameters factor, Parameters offset, NewValues y, int64_t activation) {
  const Channels channels(x);
  if (!channels.fit(factor, offset) || !all_have(x.count(), y)) return kSizesDiffer;
  const auto factors = channels.repeat(factor), offsets = channels.repeat(offset);
  with_activation(activation, [&](auto kind) {
    change_channels(pool, channels.pixels, channels.count, x.data(), x.data(), y.data(),
                    [kind, factors = factors.data(), offsets = offsets.data()](Floats value, Floats, int64_t channel) {
                      return activate<kind()>(value * load(factors + channel) + load(offsets + channel));
                    });
  });
  return {};
}

Error normalise_gradient_sums(Pool pool, Values x, Values g, Parameters factor, Parameters offset, Parameters mean,
                                   NewParameters sums, int64_t activation) {
  const Channels channels(x);
  if (!channels.fit(factor, offset, mean) || !all_have(x.count(), g) || !all_have(2 * channels.count, sums)) {
    return kSizesDiffer;
  }
  const auto factors = channels.repeat(factor), offsets = channels.repeat(offset), means = channels.repeat(mean);
  with_activation(activation, [&](auto kind) {
    sum_channels(
        pool, channels.pixels, channels.count, x.data(), g.data(),
        [kind, factors = factors.data(), offsets = offsets.data(), means = means.data()](
            Floats value, Floats gradient, int64_t channel) {
          const Floats input = value * load(factors + channel) + load(offsets + channel);
          const Floats sloped = slope_times<kind()>(input, gradient);
          return Both{sloped, sloped * (value - load(means + channel))};
        },
        sums.data());
  });
  return {};
}

Error normalise_gradient(Pool pool, Values x, Values g, Parameters factor, Parameters offset, Parameters slope,
                              Parameters constant, NewValues y, int64_t activation) {
  const Channels channels(x);
  if (!channels.fit(factor, offset, slope, constant) || !all_have(x.count(), g, y)) return kSizesDiffer;
  const auto factors = channels.repeat(factor), offsets = channels.repeat(offset);
  const auto slopes = channels.repeat(slope), constants = channels.repeat(constant);
  with_activation(activation, [&](auto kind) {
    change_channels(pool, channels.pixels, channels.count, x.data(), g.data(), y.data(),
                    [kind, factors = factors.data(), offsets = offsets.data(), slopes = slopes.data(),
                     constants = constants.data()](Floats value, Floats gradient, int64_t channel) {
                      const Floats scale = load(factors + channel);
                      const Floats input = value * scale + load(offsets + channel);
                      return scale * slope_times<kind()>(input, gradient) + value * load(slopes + channel) +
                             load(constants + channel);
                    });
  });
  return {};
}

}  // namespace

CXR_HANDLER(statistics, statistics)
CXR_HANDLER(normalise, normalise, "activation")
CXR_HANDLER(normalise_gradient_sums, normalise_gradient_sums, "activation")
CXR_HANDLER(normalise_gradient, normalise_gradient, "activation")

}  // namespace cxr
