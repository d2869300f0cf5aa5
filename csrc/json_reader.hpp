// Reads JSON text (RFC 8259) from front to back: the caller says what comes next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace igonnx {

/// Throws ModelError where the text is not what the caller asks for; it says at which byte.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  /// Calls read_value(key) for each member of an object; it must read or skip the value.
  template <typename Function>
  void object(const Function& read_value) {
    sequence('{', '}', [&] {
      const std::string key = string();
      expect(':');
      read_value(key);
    });
  }

  /// Calls read_element() for each element of an array; it must read or skip the element.
  template <typename Function>
  void array(const Function& read_element) {
    sequence('[', ']', read_element);
  }

  std::string string();
  std::int64_t integer();

  /// Reads a null, if one is next.
  bool null() { return word("null"); }

  /// Passes over any value.
  void skip();

  /// Throws if anything is left.
  void end();

 private:
  static constexpr int most_levels = 64;

  template <typename Function>
  void sequence(char open, char close, const Function& element) {
    expect(open);
    if (++levels_ > most_levels) fail("fewer levels");
    if (!accept(close)) {
      do element();
      while (accept(','));
      expect(close);
    }
    --levels_;
  }

  char next();  // the next character but white space, which stays; 0 at the end
  bool accept(char character);
  void expect(char character);
  bool word(std::string_view text);
  void escape(std::string& result);
  std::uint32_t code_unit();
  [[noreturn]] void fail(const std::string& expected) const;

  std::string_view text_;
  std::size_t place_ = 0;
  int levels_ = 0;
};

}  // namespace igonnx
