// A convolution's kernel, packed once for all the rows that meet it.
#ifndef CXR_JAX_PACKED_KERNEL_H_
#define CXR_JAX_PACKED_KERNEL_H_

#include "operands.h"
#include "parallel.h"

namespace cxr {

// Kernels of fewer elements are packed by one thread: another one needs longer to begin.
constexpr int64_t kFewElements = 16 * 1024;

// The kernel as elements [panel][depth][columns], zeros beyond its depth and outputs. Value (tap, input, output) lies at
// tap * tap_stride + input * input_stride + output * output_stride; the taps are taken backwards where `turned`.
//
// The elements lie in the calling thread's room until it packs the next kernel.
class PackedKernel {
 public:
  PackedKernel(const Pool& pool, const BFloat16* kernel, int64_t taps, int64_t inputs, int64_t outputs,
               int64_t tap_stride, int64_t input_stride, int64_t output_stride, bool turned)
      : depth_((taps * inputs + kHeld - 1) / kHeld), vectors_((outputs + kLanes - 1) / kLanes),
        elements_(scratch<Room::kPackedKernel, Element>(depth_ * vectors_ * kLanes)) {
    const auto start = [&](int64_t index) {
      const int64_t tap = turned ? taps - 1 - index / inputs : index / inputs;
      return kernel + tap * tap_stride + index % inputs * input_stride;
    };
    const int64_t pieces = depth_ * vectors_ * kLanes < kFewElements ? 1 : std::min(pool.num_threads(), depth_);
    for_pieces(pool, pieces, [&](int64_t piece) {
      const int64_t first = piece * depth_ / pieces, end = (piece + 1) * depth_ / pieces;
      for (int64_t vector = 0; vector < vectors_; vector += kPanel) {
        const int64_t columns = kLanes * std::min<int64_t>(kPanel, vectors_ - vector);
        const int64_t filled = std::min(columns, outputs - vector * kLanes);
        const int64_t offset = vector * kLanes * output_stride;
        Element* to = elements_ + vector * kLanes * depth_ + first * columns;
        for (int64_t index = first; index < end; ++index, to += columns) {
          const BFloat16* from[kHeld] = {};
          const int64_t held = std::min<int64_t>(kHeld, taps * inputs - index * kHeld);
          for (int64_t value = 0; value < held; ++value) from[value] = start(index * kHeld + value) + offset;
          // neighbours are packed by vectors, which takes a stride that the compiler knows
          if (output_stride == 1) pack(from, held, filled, std::integral_constant<int64_t, 1>(), to);
          else pack(from, held, filled, output_stride, to);
          std::fill(to + filled, to + columns, Element());
        }
      }
    });
  }

  int64_t depth() const { return depth_; }
  int64_t vectors() const { return vectors_; }
  const Element* panel(int64_t vector) const { return elements_ + vector * kLanes * depth_; }

 private:
  template <typename Stride>
  static void pack(const BFloat16* const (&from)[kHeld], int64_t held, int64_t count, Stride stride, Element* to) {
    if (held < 2) {
      for (int64_t column = 0; column < count; ++column) to[column] = element_of(from[0][column * stride]);
      return;
    }
#if defined(__AVX512BF16__)
    for (int64_t column = 0; column < count; ++column) {
      to[column] = element_of(from[0][column * stride], from[1][column * stride]);
    }
#endif
  }

  int64_t depth_, vectors_;
  Element* elements_;
};

}  // namespace cxr

#endif  // CXR_JAX_PACKED_KERNEL_H_
