// Calls the kernels by name, as XLA does and as often as it is asked to; its argument is the number of threads. For
// processors where jax does not run, and for sanitizers, which cannot look into a library that an interpreter loads.
//
// A call is read from standard input: the handler's name, operands with their values, results, and numbers with their
// names. The error is written to standard output, as its length and its letters, and if there is none the results.
#include <dlfcn.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <vector>

#include "any_depthwise.cc"
#include "channels.cc"
#include "convolutions.cc"
#include "depthwise.cc"
#include "inverted_residual.cc"
#include "pooling.cc"
#include "shared.cc"

struct XLA_FFI_Error {
  std::string message;
};

// What the kernels are given as the context of a call. Its name differs between versions of the interface.
struct Workers {
  explicit Workers(int64_t count) {
    for (int64_t worker = 0; worker < count; ++worker) threads.emplace_back([this] { work(); });
  }
  ~Workers() {
    for (size_t worker = 0; worker < threads.size(); ++worker) schedule({});
    for (std::thread& thread : threads) thread.join();
  }
  void schedule(std::function<void()> task) {
    const std::lock_guard<std::mutex> lock(mutex);
    tasks.push(std::move(task));
    added.notify_one();
  }
  void work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex);
      added.wait(lock, [this] { return !tasks.empty(); });
      const std::function<void()> task = std::move(tasks.front());
      tasks.pop();
      lock.unlock();
      if (!task) return;
      task();
    }
  }

  std::mutex mutex;
  std::condition_variable added;
  std::queue<std::function<void()>> tasks;
  std::vector<std::thread> threads;
};

namespace {

void read(void* to, size_t bytes) {
  if (bytes > 0 && std::fread(to, 1, bytes, stdin) != bytes) std::exit(2);
}

int64_t read_number() {
  int64_t number;
  read(&number, sizeof number);
  return number;
}

std::string read_text() {
  std::string text(read_number(), ' ');
  read(text.data(), text.size());
  return text;
}

// As many bytes as the array has, no more: what is read or written beyond them is found.
struct Array {
  Array() {
    buffer.struct_size = XLA_FFI_Buffer_STRUCT_SIZE;
    buffer.dtype = static_cast<XLA_FFI_DataType>(read_number());
    bytes = read_number();
    dimensions.resize(read_number());
    for (int64_t& length : dimensions) length = read_number();
    values.reset(new char[bytes]);
    buffer.data = values.get();
    buffer.rank = static_cast<int64_t>(dimensions.size());
    buffer.dims = dimensions.data();
  }
  Array(const Array&) = delete;

  XLA_FFI_Buffer buffer = {};
  size_t bytes = 0;
  std::vector<int64_t> dimensions;
  std::unique_ptr<char[]> values;
};

template <typename Arguments>
Workers& workers_of(Arguments* asked) {
  return *reinterpret_cast<Workers*>(asked->ctx);
}

XLA_FFI_Api interface() {
  XLA_FFI_Api api = {};
  api.XLA_FFI_Error_Create = [](XLA_FFI_Error_Create_Args* asked) { return new XLA_FFI_Error{asked->message}; };
  api.XLA_FFI_Error_Destroy = [](XLA_FFI_Error_Destroy_Args* asked) { delete asked->error; };
  api.XLA_FFI_ThreadPool_NumThreads = [](XLA_FFI_ThreadPool_NumThreads_Args* asked) -> XLA_FFI_Error* {
    *asked->num_threads = static_cast<int64_t>(workers_of(asked).threads.size());
    return nullptr;
  };
  api.XLA_FFI_ThreadPool_Schedule = [](XLA_FFI_ThreadPool_Schedule_Args* asked) -> XLA_FFI_Error* {
    workers_of(asked).schedule([task = asked->task, data = asked->data] { task(data); });
    return nullptr;
  };
  return api;
}

// Reads what `handler` is to be called with, calls it and writes what comes of it.
void answer_call(XLA_FFI_Handler* handler, const XLA_FFI_Api& api, Workers& workers) {
  std::deque<Array> operands, results;
  std::vector<void*> operand_places, result_places, number_places;
  for (int64_t left = read_number(); left > 0; --left) {
    operand_places.push_back(&operands.emplace_back().buffer);
    read(operands.back().buffer.data, operands.back().bytes);
  }
  for (int64_t left = read_number(); left > 0; --left) result_places.push_back(&results.emplace_back().buffer);
  struct Number {
    std::string name = read_text();
    int64_t value = read_number();
    XLA_FFI_Scalar scalar = {XLA_FFI_DataType_S64, &value};
    XLA_FFI_ByteSpan span = {name.data(), name.size()};
  };
  std::deque<Number> numbers;
  std::vector<XLA_FFI_ByteSpan*> names;
  for (int64_t left = read_number(); left > 0; --left) {
    number_places.push_back(&numbers.emplace_back().scalar);
    names.push_back(&numbers.back().span);
  }
  std::vector<XLA_FFI_ArgType> operand_types(operands.size(), XLA_FFI_ArgType_BUFFER);
  std::vector<XLA_FFI_RetType> result_types(results.size(), XLA_FFI_RetType_BUFFER);
  std::vector<XLA_FFI_AttrType> number_types(numbers.size(), XLA_FFI_AttrType_SCALAR);

  XLA_FFI_CallFrame call = {};
  call.struct_size = XLA_FFI_CallFrame_STRUCT_SIZE;
  call.api = &api;
  call.ctx = reinterpret_cast<decltype(call.ctx)>(&workers);
  call.stage = XLA_FFI_ExecutionStage_EXECUTE;
  call.args = {XLA_FFI_Args_STRUCT_SIZE, nullptr, static_cast<int64_t>(operands.size()), operand_types.data(),
               operand_places.data()};
  call.rets = {XLA_FFI_Rets_STRUCT_SIZE, nullptr, static_cast<int64_t>(results.size()), result_types.data(),
               result_places.data()};
  call.attrs = {XLA_FFI_Attrs_STRUCT_SIZE, nullptr, static_cast<int64_t>(numbers.size()), number_types.data(),
                names.data(), number_places.data()};

  const std::unique_ptr<XLA_FFI_Error> error(handler(&call));
  const std::string message = error ? error->message : "";
  const int64_t length = static_cast<int64_t>(message.size());
  std::fwrite(&length, sizeof length, 1, stdout);
  std::fwrite(message.data(), 1, message.size(), stdout);
  if (!error) {
    for (const Array& result : results) std::fwrite(result.buffer.data, 1, result.bytes, stdout);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  Workers workers(count > 1 ? std::atoi(arguments[1]) : 1);
  const XLA_FFI_Api api = interface();
  char name[64];
  while (std::fgets(name, sizeof name, stdin) != nullptr) {
    std::string wanted(name);
    wanted.pop_back();
    void* const found = dlsym(RTLD_DEFAULT, wanted.c_str());
    if (found == nullptr) return 3;
    answer_call(reinterpret_cast<XLA_FFI_Handler*>(found), api, workers);
  }
}
