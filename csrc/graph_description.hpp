// What an explanation graph says of itself, in its metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ort_abi.h"

namespace igonnx {

/// The parts of an explanation graph, as igonnx/explanation_graph.py writes them.
struct GraphDescription {
  std::vector<std::string> explained;  // tensors; the graph's inputs are x:<name>, baseline:<name>
  std::vector<std::string> batched;    // fixed inputs [R, ...], as the graph calls them
  std::vector<std::string> shared;     // fixed inputs that the model takes as they are
  abi::ElementType dtype = abi::ElementType::undefined;  // of x, baseline, cotangent and outputs
  std::optional<std::int64_t> fixed_rows;                // the only number of rows the model takes
};

/// The key of the metadata.
inline constexpr const char* description_key = "igonnx.explanation_graph";

/// Reads a description, a JSON object; keys that it does not know are skipped. Throws ModelError if
/// `json` is no such object.
GraphDescription read_description(std::string_view json);

}  // namespace igonnx
