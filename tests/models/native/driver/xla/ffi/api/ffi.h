// What the kernels need of XLA's header of this name, for a program without XLA: arrays and numbers are read from standard
// input in the order of a handler's parameters, and its results are written to standard output.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace xla::ffi {

class Workers {
 public:
  explicit Workers(int64_t count) {
    for (int64_t worker = 0; worker < count; ++worker) threads_.emplace_back([this] { work(); });
  }
  ~Workers() {
    for (size_t worker = 0; worker < threads_.size(); ++worker) schedule({});
    for (std::thread& thread : threads_) thread.join();
  }
  int64_t count() const { return static_cast<int64_t>(threads_.size()); }
  void schedule(std::function<void()> task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push(std::move(task));
    added_.notify_one();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      added_.wait(lock, [this] { return !tasks_.empty(); });
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop();
      lock.unlock();
      if (!task) return;
      task();
    }
  }

  std::mutex mutex_;
  std::condition_variable added_;
  std::queue<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
};

class ThreadPool {
 public:
  explicit ThreadPool(Workers& workers) : workers_(&workers) {}
  int64_t num_threads() const { return workers_->count(); }
  template <typename Task>
  void Schedule(Task task) {
    workers_->schedule(task);
  }

 private:
  Workers* workers_;
};

struct BF16 {
  using Stored = uint16_t;
};
struct F32 {
  using Stored = float;
};

class Error {
 public:
  static Error Success() { return {}; }
  static Error InvalidArgument(std::string message) {
    Error error;
    error.message_ = std::move(message);
    return error;
  }
  bool failure() const { return !message_.empty(); }
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

inline void read(void* to, size_t bytes) {
  if (bytes > 0 && std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}
inline int64_t read_number() {
  int64_t number;
  read(&number, sizeof number);
  return number;
}

// As many bytes as the array has, no more: what is read or written beyond them is found.
template <typename Type>
class Buffer {
 public:
  using Dimensions = std::vector<int64_t>;

  Buffer() {
    for (int64_t axis = read_number(); axis > 0; --axis) dimensions_.push_back(read_number());
    for (const int64_t size : dimensions_) count_ *= size;
    values_.reset(new typename Type::Stored[count_]);
  }
  const Dimensions& dimensions() const { return dimensions_; }
  size_t element_count() const { return count_; }
  size_t bytes() const { return count_ * sizeof(typename Type::Stored); }
  void* untyped_data() const { return values_.get(); }
  typename Type::Stored* typed_data() const { return values_.get(); }

 private:
  Dimensions dimensions_;
  size_t count_ = 1;
  std::shared_ptr<typename Type::Stored[]> values_;
};
template <typename Type>
using BufferR4 = Buffer<Type>;

template <typename Type>
struct ResultBuffer {
  Buffer<Type> buffer;
  Buffer<Type>& operator*() { return buffer; }
  Buffer<Type>* operator->() { return &buffer; }
};
template <typename Type>
using ResultBufferR4 = ResultBuffer<Type>;

template <typename Parameter>
struct Reader;
template <>
struct Reader<ThreadPool> {
  static ThreadPool take(Workers& workers) { return ThreadPool(workers); }
};
template <>
struct Reader<int64_t> {
  static int64_t take(Workers&) { return read_number(); }
};
template <typename Type>
struct Reader<Buffer<Type>> {
  static Buffer<Type> take(Workers&) {
    Buffer<Type> buffer;
    read(buffer.untyped_data(), buffer.bytes());
    return buffer;
  }
};
template <typename Type>
struct Reader<ResultBuffer<Type>> {
  static ResultBuffer<Type> take(Workers&) { return {}; }
};

template <typename Parameter>
void write_result(Parameter&) {}
template <typename Type>
void write_result(ResultBuffer<Type>& result) {
  std::fwrite(result->untyped_data(), 1, result->bytes(), stdout);
}

template <typename... Parameters>
void call(Error (*handler)(Parameters...), Workers& workers) {
  // braces: from the first parameter to the last
  std::tuple<Parameters...> parameters{Reader<Parameters>::take(workers)...};
  const Error error = std::apply(handler, parameters);
  const int64_t length = static_cast<int64_t>(error.message().size());
  std::fwrite(&length, sizeof length, 1, stdout);
  std::fwrite(error.message().data(), 1, error.message().size(), stdout);
  if (!error.failure()) std::apply([](auto&... each) { (write_result(each), ...); }, parameters);
  std::fflush(stdout);
}

inline std::map<std::string, std::function<void(Workers&)>>& handlers() {
  static std::map<std::string, std::function<void(Workers&)>> all;
  return all;
}

}  // namespace xla::ffi

#define XLA_FFI_DEFINE_HANDLER_SYMBOL(symbol, handler, ...)                                 \
  const bool symbol = xla::ffi::handlers()                                                  \
                          .emplace(#symbol, [](xla::ffi::Workers& workers) {                \
                            xla::ffi::call(handler, workers);                               \
                          })                                                                \
                          .second
