// Memory that is needed next, fetched while the processor computes.
#ifndef CXR_JAX_AHEAD_H_
#define CXR_JAX_AHEAD_H_

#include <algorithm>

#include "vectors.h"

namespace cxr {

// Fetches stretches of memory into the cache, a share of them at each of `calls` calls: lines that are asked for at once
// wait for each other, and the computation for them.
class Ahead {
 public:
  explicit Ahead(int64_t calls) : calls_(std::max<int64_t>(1, calls)) {}

  void add(const BFloat16* begin, int64_t count) {
    Stretch& stretch = stretches_[count_++];
    stretch.next = reinterpret_cast<const char*>(begin);
    stretch.end = reinterpret_cast<const char*>(begin + count);
    stretch.lines = ((stretch.end - stretch.next) / kLine + calls_) / calls_;
  }

  void fetch() {
    for (Stretch& stretch : stretches_) {
      for (int64_t line = 0; line < stretch.lines && stretch.next < stretch.end; ++line, stretch.next += kLine) {
        __builtin_prefetch(stretch.next, 0, 2);
      }
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  struct Stretch {
    const char *next = nullptr, *end = nullptr;
    int64_t lines = 0;
  };
  int64_t calls_;
  int count_ = 0;
  Stretch stretches_[2];
};

}  // namespace cxr

#endif  // CXR_JAX_AHEAD_H_
