#include "json_reader.hpp"

#include <charconv>

#include "errors.hpp"

namespace igonnx {

namespace {

void append_utf8(std::string& text, std::uint32_t point) {
  const auto byte = [&text](std::uint32_t value) { text += static_cast<char>(value); };
  const auto trailing = [&](int shift) { byte(0x80 | ((point >> shift) & 0x3f)); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xc0 | (point >> 6));
    trailing(0);
  } else if (point < 0x10000) {
    byte(0xe0 | (point >> 12));
    trailing(6);
    trailing(0);
  } else {
    byte(0xf0 | (point >> 18));
    trailing(12);
    trailing(6);
    trailing(0);
  }
}

bool is_number_part(char c) {
  return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

}  // namespace

std::string JsonReader::string() {
  expect('"');
  std::string result;
  for (;;) {
    if (place_ == text_.size()) fail("the end of a string");
    const char character = text_[place_++];
    if (character == '"') return result;
    if (character == '\\') {
      escape(result);
    } else {
      result += character;
    }
  }
}

void JsonReader::escape(std::string& result) {
  constexpr std::string_view letters = "\"\\/bfnrt";
  constexpr std::string_view meanings = "\"\\/\b\f\n\r\t";
  const char letter = place_ < text_.size() ? text_[place_++] : '\0';
  if (const std::size_t found = letters.find(letter); found != letters.npos) {
    result += meanings[found];
    return;
  }
  if (letter != 'u') fail("an escape sequence");
  std::uint32_t point = code_unit();
  if (point >= 0xd800 && point < 0xdc00 && text_.substr(place_, 2) == "\\u") {
    const std::size_t before = place_;
    place_ += 2;
    const std::uint32_t low = code_unit();
    if (low >= 0xdc00 && low < 0xe000) {
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    } else {
      place_ = before;
    }
  }
  append_utf8(result, point);
}

std::uint32_t JsonReader::code_unit() {
  const std::string_view digits = text_.substr(place_, 4);
  std::uint32_t value = 0;
  const auto [stop, failure] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (failure != std::errc() || stop != digits.data() + 4) fail("four hexadecimal digits");
  place_ += 4;
  return value;
}

std::int64_t JsonReader::integer() {
  next();
  const std::string_view rest = text_.substr(place_);
  std::int64_t value = 0;
  const auto [stop, failure] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (failure != std::errc()) fail("an integer");
  place_ += static_cast<std::size_t>(stop - rest.data());
  return value;
}

void JsonReader::skip() {
  const char first = next();
  if (first == '{') {
    object([this](const std::string&) { skip(); });
  } else if (first == '[') {
    array([this] { skip(); });
  } else if (first == '"') {
    string();
  } else if (is_number_part(first)) {
    while (place_ < text_.size() && is_number_part(text_[place_])) ++place_;
  } else if (!word("true") && !word("false") && !word("null")) {
    fail("a value");
  }
}

void JsonReader::end() {
  if (next() != '\0') fail("the end");
}

char JsonReader::next() {
  while (place_ < text_.size() &&
         std::string_view(" \t\r\n").find(text_[place_]) != std::string_view::npos) {
    ++place_;
  }
  return place_ < text_.size() ? text_[place_] : '\0';
}

bool JsonReader::accept(char character) {
  if (next() != character) return false;
  ++place_;
  return true;
}

void JsonReader::expect(char character) {
  if (!accept(character)) fail(std::string("'") + character + "'");
}

bool JsonReader::word(std::string_view text) {
  next();
  if (text_.substr(place_, text.size()) != text) return false;
  place_ += text.size();
  return true;
}

void JsonReader::fail(const std::string& expected) const {
  throw ModelError("JSON is wrong at byte " + std::to_string(place_) + ": expected " + expected);
}

}  // namespace igonnx
