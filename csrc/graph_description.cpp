#include "graph_description.hpp"

#include "errors.hpp"
#include "json_reader.hpp"

namespace igonnx {

namespace {

std::vector<std::string> strings(JsonReader& reader) {
  std::vector<std::string> result;
  reader.array([&] { result.push_back(reader.string()); });
  return result;
}

abi::ElementType floating_type(const std::string& name) {
  if (name == "float32") return abi::ElementType::float32;
  if (name == "float64") return abi::ElementType::float64;
  throw ModelError("its dtype is '" + name + "'; expected float32 or float64");
}

}  // namespace

GraphDescription read_description(std::string_view json) {
  GraphDescription description;
  JsonReader reader(json);
  reader.object([&](const std::string& key) {
    if (key == "explained") {
      description.explained = strings(reader);
    } else if (key == "batched") {
      description.batched = strings(reader);
    } else if (key == "shared") {
      description.shared = strings(reader);
    } else if (key == "dtype") {
      description.dtype = floating_type(reader.string());
    } else if (key == "fixed_rows" && !reader.null()) {
      description.fixed_rows = reader.integer();
    } else if (key != "fixed_rows") {
      reader.skip();
    }
  });
  reader.end();
  if (description.explained.empty()) throw ModelError("it explains no tensor");
  if (description.dtype == abi::ElementType::undefined) throw ModelError("it has no dtype");
  if (description.fixed_rows.value_or(1) < 1) throw ModelError("its fixed_rows are less than 1");
  return description;
}

}  // namespace igonnx
