// Every operator of the domain ai.igonnx.
#pragma once

#include <cstdint>
#include <vector>

#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

/// All operators, laid out for version `abi_version` of the C API.
std::vector<CustomOperator> all_operators(const ort::Api& api, std::uint32_t abi_version);

}  // namespace igonnx::plugin
