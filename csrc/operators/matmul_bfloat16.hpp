// The operator ai.igonnx::MatMulBFloat16: a matrix product whose factors are rounded to bfloat16.
//
//   inputs      A, B: float32, as for MatMul, but for transposition
//   attributes  transA, transB (default 0): whether the last two axes of A and B are swapped first;
//               alpha (default 1): a factor, taken into A before it is rounded
//   output      float32: alpha A B, of rounded factors, with products summed up in float32
//
// The work is oneDNN's. A constant B of two axes is packed once, when the session is made.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

class MatMulBFloat16 {
 public:
  static constexpr const char* name = "MatMulBFloat16";
  static constexpr std::array inputs{abi::ElementType::float32, abi::ElementType::float32};
  static constexpr std::array outputs{abi::ElementType::float32};
  static constexpr std::array<std::size_t, 0> shaped_like{};

  explicit MatMulBFloat16(const Attributes& attributes);
  ~MatMulBFloat16();

  void compute(const Call& call) const;

 private:
  struct State;  // products made ready

  bool transpose_a_;
  bool transpose_b_;
  float alpha_;
  std::unique_ptr<State> state_;
};

}  // namespace igonnx::plugin
