// Runs every test, or those whose names contain one of the arguments.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include "check.hpp"

namespace igonnx::tests {

namespace {

struct Test {
  const char* name;
  void (*body)();
};

std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

bool passes(const Test& test) {
  try {
    test.body();
    return true;
  } catch (const std::exception& error) {
    std::printf("FAILED %s\n  %s\n", test.name, error.what());
    return false;
  }
}

}  // namespace

bool add_test(const char* name, void (*body)()) {
  all_tests().push_back({name, body});
  return true;
}

}  // namespace igonnx::tests

int main(int count, char** arguments) {
  using namespace igonnx::tests;
  const auto chosen = [&](const Test& test) {
    return count == 1 || std::any_of(arguments + 1, arguments + count, [&](const char* part) {
             return std::strstr(test.name, part) != nullptr;
           });
  };
  int run = 0;
  int failed = 0;
  for (const Test& test : all_tests()) {
    if (!chosen(test)) continue;
    ++run;
    failed += passes(test) ? 0 : 1;
  }
  std::printf("%d of %d tests passed\n", run - failed, run);
  return failed == 0 && run > 0 ? 0 : 1;
}
