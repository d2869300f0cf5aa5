// The operator ai.igonnx::ActivationMask.
//
//   inputs      gradient, output: float32 or float64, of one shape
//   attributes  lower (default 0), upper (default infinity): numbers, single precision
//   output      lower < output < upper ? gradient : 0, as kernels/activation_mask.hpp says
#pragma once

#include <array>
#include <cstdint>

#include "ort.hpp"

namespace igonnx {

/// A custom operator that knows the API it was registered with.
struct CustomOperator : abi::CustomOp {
  ort::Api api;
};

/// The operator for float32 and for float64, laid out for version `abi_version` of the C API.
std::array<CustomOperator, 2> activation_mask_operators(const ort::Api& api,
                                                        std::uint32_t abi_version);

}  // namespace igonnx
