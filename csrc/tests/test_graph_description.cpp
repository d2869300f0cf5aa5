// graph_description.hpp and json_reader.hpp: what is read, and what is refused.
#include <string>

#include "check.hpp"
#include "errors.hpp"
#include "graph_description.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

std::string refusal(const std::string& json) {
  return message_of<ModelError>([&] { read_description(json); });
}

}  // namespace

TEST(description_of_a_graph) {
  const GraphDescription found =
      read_description(R"({"explained": ["image", "b"], "batched": ["fixed:mask"], "shared": [],)"
                       R"( "dtype": "float64", "fixed_rows": 4})");
  CHECK_EQUAL(found.explained.size(), 2u);
  CHECK_EQUAL(found.explained[1], "b");
  CHECK_EQUAL(found.batched.at(0), "fixed:mask");
  CHECK(found.shared.empty());
  CHECK(found.dtype == abi::ElementType::float64);
  CHECK_EQUAL(found.fixed_rows.value(), 4);
}

TEST(description_with_more_than_is_known) {
  const GraphDescription found = read_description(
      " {\"later\": {\"a\": [1, -2.5e3, true, false, null, {}, []], \"b\": \"\\\"\"},\n"
      "\"explained\":[ \"x\" ],\"fixed_rows\":null ,\"dtype\":\"float32\"} ");
  CHECK_EQUAL(found.explained.at(0), "x");
  CHECK(!found.fixed_rows);
}

TEST(description_with_names_of_all_letters) {
  const GraphDescription found = read_description(
      R"({"dtype": "float32", "explained": ["a\"\\\/\b\f\n\r\tz", "\u00e9\u20AC\ud83d\ude00", "é"]})");
  CHECK_EQUAL(found.explained[0], "a\"\\/\b\f\n\r\tz");
  CHECK_EQUAL(found.explained[1], "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK_EQUAL(found.explained[2], "\xc3\xa9");
}

TEST(description_that_lacks_something) {
  CHECK_EQUAL(refusal("{}"), "it explains no tensor");
  CHECK_EQUAL(refusal(R"({"explained": ["x"]})"), "it has no dtype");
  CHECK_EQUAL(refusal(R"({"explained": ["x"], "dtype": "float16"})"),
              "its dtype is 'float16'; expected float32 or float64");
  CHECK_EQUAL(refusal(R"({"explained": ["x"], "dtype": "float32", "fixed_rows": 0})"),
              "its fixed_rows are less than 1");
}

TEST(description_that_is_no_json) {
  const std::string whole =
      R"({"explained": ["x", "\u00e9"], "a": [1, {"b": null}], "dtype": "float32"})";
  read_description(whole);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CHECK_EQUAL(refusal(whole.substr(0, length)).substr(0, 21), "JSON is wrong at byte");
  }
  CHECK_EQUAL(refusal(whole + "}"),
              "JSON is wrong at byte " + std::to_string(whole.size()) + ": expected the end");
  CHECK_EQUAL(refusal("[]"), "JSON is wrong at byte 0: expected '{'");
  CHECK_EQUAL(refusal(R"({"a": x})"), "JSON is wrong at byte 6: expected a value");
  CHECK_EQUAL(refusal(R"({"a": "\x"})"), "JSON is wrong at byte 9: expected an escape sequence");
  CHECK_EQUAL(refusal(R"({"a": "\u12"})"),
              "JSON is wrong at byte 9: expected four hexadecimal digits");
  CHECK_EQUAL(refusal(R"({"fixed_rows": "4"})"), "JSON is wrong at byte 15: expected an integer");
  CHECK_EQUAL(refusal("{\"a\": " + std::string(100, '[')).substr(0, 21), "JSON is wrong at byte");
}
