// What the unit tests are written with: tests that register themselves, and checks.
//
//   TEST(a_sum_is_a_sum) { CHECK_EQUAL(sum(2, 3), 5); }
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace igonnx::tests {

/// A check that does not hold; ends its test.
class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Makes `body` a test, run by main.cpp. `name` must outlive the program.
bool add_test(const char* name, void (*body)());

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename Given, typename Expected>
void check_equal(const Given& given, const Expected& expected, const char* text, const char* file,
                 int line) {
  if (given == expected) return;
  std::ostringstream what;
  what << text << " is " << given << "; expected " << expected;
  fail(file, line, what.str());
}

/// The message of the `Error` that `body` throws; fails if it throws none.
template <typename Error, typename Body>
std::string message_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  throw Failure("nothing was thrown");
}

}  // namespace igonnx::tests

#define TEST(name)                                                                         \
  static void name();                                                                      \
  [[maybe_unused]] static const bool name##_added = igonnx::tests::add_test(#name, &name); \
  static void name()

#define CHECK(condition) \
  if (!(condition)) igonnx::tests::fail(__FILE__, __LINE__, #condition " does not hold")

#define CHECK_EQUAL(given, expected) \
  igonnx::tests::check_equal(given, expected, #given, __FILE__, __LINE__)
