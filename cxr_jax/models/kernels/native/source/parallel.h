// Work in numbered pieces over XLA's own threads.
#ifndef CXR_JAX_PARALLEL_H_
#define CXR_JAX_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace cxr {

// Calls `work(piece)` for every piece below `count`. The caller takes pieces too, and waits only for pieces that
// another thread has begun: two calls that share a pool cannot wait for each other. An exception ends the process: the
// other threads would go on with what it unwinds.
template <typename Work>
void for_pieces(xla::ffi::ThreadPool& pool, int64_t count, const Work& work) noexcept {
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  if (helpers < 1) {
    for (int64_t piece = 0; piece < count; ++piece) work(piece);
    return;
  }
  struct Progress {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  auto progress = std::make_shared<Progress>();
  const Work* shared_work = &work;
  auto take = [progress, shared_work, count] {
    // a helper that comes late finds no piece and does not touch `work`, which is gone by then
    for (int64_t piece; (piece = progress->next.fetch_add(1)) < count;) {
      (*shared_work)(piece);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule(decltype(take)(take));
  take();
  while (progress->done.load(std::memory_order_acquire) < count) std::this_thread::yield();
}

// What a thread keeps room for. A use that others may fall into needs a room of its own.
enum class Room {
  kChannelSums,
  kWidenedRows,
  kWindows,
  kTileSums,
  kWindowsOfPixels,
  kGradientsOfPixels,
  kRowPanels,
  kColumnPanels,
  kKernelShares,
};

// A vector that crosses two of them is read at half the speed.
struct alignas(64) CacheLine {
  unsigned char bytes[64];
};

// Room for `count` values that the calling thread keeps for its next call: fresh pages cost more than the work. What
// lies there is left from before.
template <Room kRoom, typename T>
T* scratch(int64_t count) {
  thread_local std::vector<CacheLine> lines;
  const size_t needed = (count * sizeof(T) + sizeof(CacheLine) - 1) / sizeof(CacheLine);
  if (lines.size() < needed) lines.resize(needed);
  return reinterpret_cast<T*>(lines.data());
}

}  // namespace cxr

#endif  // CXR_JAX_PARALLEL_H_
