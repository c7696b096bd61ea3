// Work in numbered pieces over XLA's own threads: what all units share.
#include "parallel.h"

#include <sched.h>

#include <atomic>

namespace cxr {
namespace {

struct Progress {
  void (*piece)(const void*, int64_t);
  const void* work;
  int64_t count;
  std::atomic<int64_t> next, done, holders;

  // A helper that comes late finds no piece and does not touch `work`, which is gone by then.
  void take() {
    for (int64_t number; (number = next.fetch_add(1)) < count;) {
      piece(work, number);
      done.fetch_add(1, std::memory_order_release);
    }
  }
  void let_go() {
    if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

void help(void* given) {
  auto* progress = static_cast<Progress*>(given);
  progress->take();
  progress->let_go();
}

}  // namespace

void run_pieces(const Pool& pool, int64_t count, void (*piece)(const void*, int64_t), const void* work) noexcept {
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  if (helpers < 1) {
    for (int64_t number = 0; number < count; ++number) piece(work, number);
    return;
  }
  auto* progress = new Progress{piece, work, count, {0}, {0}, {helpers + 1}};
  for (int64_t helper = 0; helper < helpers; ++helper) pool.schedule(help, progress);
  progress->take();
  while (progress->done.load(std::memory_order_acquire) < count) sched_yield();
  progress->let_go();
}

}  // namespace cxr
