// Calls the kernels by name, as often as it is asked to; its argument is the number of threads. For processors where jax
// does not run, and for sanitizers, which cannot look into a library that an interpreter loads.
#include "channels.cc"
#include "convolutions.cc"
#include "depthwise.cc"
#include "pooling.cc"

int main(int count, char** arguments) {
  xla::ffi::Workers workers(count > 1 ? std::atoi(arguments[1]) : 1);
  char name[64];
  while (std::fgets(name, sizeof name, stdin) != nullptr) {
    std::string wanted(name);
    wanted.pop_back();
    xla::ffi::handlers().at(wanted)(workers);
  }
}
