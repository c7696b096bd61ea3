// What all units share: calls of XLA's interface, and work over its threads. One unit, because the headers take longest.
#include "frame.h"

#include <sched.h>

#include <atomic>
#include <cstring>

#include "parallel.h"

namespace cxr {

int64_t Pool::num_threads() const {
  int64_t count = 0;
  XLA_FFI_ThreadPool_NumThreads_Args asked = {};
  asked.struct_size = XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE;
  asked.ctx = context_;
  asked.num_threads = &count;
  if (XLA_FFI_Error* error = api_->XLA_FFI_ThreadPool_NumThreads(&asked)) forget(error);
  return count;
}

void Pool::schedule(void (*task)(void*), void* data) const {
  XLA_FFI_ThreadPool_Schedule_Args asked = {};
  asked.struct_size = XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE;
  asked.ctx = context_;
  asked.task = task;
  asked.data = data;
  if (XLA_FFI_Error* error = api_->XLA_FFI_ThreadPool_Schedule(&asked)) {
    forget(error);
    task(data);
  }
}

void Pool::forget(XLA_FFI_Error* error) const {
  XLA_FFI_Error_Destroy_Args asked = {};
  asked.struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE;
  asked.error = error;
  api_->XLA_FFI_Error_Destroy(&asked);
}

bool Frame::fits(const Kind* kinds, int64_t count) const {
  int64_t counts[3] = {};
  for (int64_t place = 0; place < count; ++place) {
    const bool is_number = kinds[place] == Kind::kNumber;
    const bool is_result = kinds[place] == Kind::kNewValues || kinds[place] == Kind::kNewParameters;
    ++counts[is_number ? 2 : is_result ? 1 : 0];
  }
  if (call_.args.size != counts[0] || call_.rets.size != counts[1]) return false;
  for (int64_t place = 0; place < count; ++place) {
    if (kinds[place] == Kind::kNumber) {
      if (number(place) == nullptr) return false;
      continue;
    }
    const bool holds_values = kinds[place] == Kind::kValues || kinds[place] == Kind::kNewValues;
    const XLA_FFI_Buffer& found = buffer(place);
    if (found.dtype != (holds_values ? XLA_FFI_DataType_BF16 : XLA_FFI_DataType_F32)) return false;
    if (holds_values && found.rank != 4) return false;
  }
  return true;
}

const int64_t* Frame::number(int64_t place) const {
  const char* name = names_[place - call_.args.size - call_.rets.size];
  for (int64_t index = 0; index < call_.attrs.size; ++index) {
    const XLA_FFI_ByteSpan& given = *call_.attrs.names[index];
    if (given.len != std::strlen(name) || std::memcmp(given.ptr, name, given.len) != 0) continue;
    if (call_.attrs.types[index] != XLA_FFI_AttrType_SCALAR) return nullptr;
    const auto* scalar = static_cast<const XLA_FFI_Scalar*>(call_.attrs.attrs[index]);
    return scalar->dtype == XLA_FFI_DataType_S64 ? static_cast<const int64_t*>(scalar->value) : nullptr;
  }
  return nullptr;
}

bool asks_for_version(const XLA_FFI_CallFrame& call) {
  if (call.extension_start == nullptr || call.extension_start->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata& metadata = *reinterpret_cast<XLA_FFI_Metadata_Extension*>(call.extension_start)->metadata;
  metadata.api_version = {XLA_FFI_Api_Version_STRUCT_SIZE, nullptr, XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR};
  metadata.traits = 0;
  return true;
}

XLA_FFI_Error* told(const XLA_FFI_CallFrame& call, Error error) {
  if (!error) return nullptr;
  XLA_FFI_Error_Create_Args asked = {};
  asked.struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE;
  asked.message = error.message();
  asked.errc = XLA_FFI_Error_Code_INVALID_ARGUMENT;
  return call.api->XLA_FFI_Error_Create(&asked);
}

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
