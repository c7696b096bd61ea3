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

  // `count` values from `begin` on, and as many of each of the next rows, which lie `stride` values apart.
  template <typename T>
  void add(const T* begin, int64_t count, int64_t rows = 1, int64_t stride = 0) {
    Stretch& stretch = stretches_[count_++];
    stretch.begin = stretch.next = reinterpret_cast<const char*>(begin);
    stretch.size = count * static_cast<int64_t>(sizeof(T));
    stretch.step = stride * static_cast<int64_t>(sizeof(T));
    stretch.rows = rows;
    stretch.lines = (rows * (stretch.size / kLine + 1) + calls_ - 1) / calls_;
  }

  void fetch() {
    for (Stretch& stretch : stretches_) {
      for (int64_t line = 0; line < stretch.lines && stretch.rows > 0; ++line) {
        __builtin_prefetch(stretch.next, 0, 2);
        stretch.next += kLine;
        if (stretch.next >= stretch.begin + stretch.size) {
          stretch.next = stretch.begin += stretch.step;
          --stretch.rows;
        }
      }
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  struct Stretch {
    const char *begin = nullptr, *next = nullptr;  // of the row that is fetched
    int64_t size = 0, step = 0, rows = 0, lines = 0;
  };
  int64_t calls_;
  int count_ = 0;
  Stretch stretches_[2];
};

}  // namespace cxr

#endif  // CXR_JAX_AHEAD_H_
