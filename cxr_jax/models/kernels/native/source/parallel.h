// Work in numbered pieces over XLA's own threads.
#ifndef CXR_JAX_PARALLEL_H_
#define CXR_JAX_PARALLEL_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "frame.h"

namespace cxr {

// Calls `piece(work, number)` for every number below `count`, as `for_pieces` does.
void run_pieces(const Pool& pool, int64_t count, void (*piece)(const void*, int64_t), const void* work) noexcept;

// Calls `work(piece)` for every piece below `count`. The caller takes pieces too, and waits only for pieces that
// another thread has begun: two calls that share a pool cannot wait for each other. An exception ends the process: the
// other threads would go on with what it unwinds.
template <typename Work>
void for_pieces(const Pool& pool, int64_t count, const Work& work) noexcept {
  run_pieces(pool, count, [](const void* called, int64_t piece) { (*static_cast<const Work*>(called))(piece); }, &work);
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
  kPackedKernel,
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
