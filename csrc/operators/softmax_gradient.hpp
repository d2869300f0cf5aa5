// The operator ai.igonnx::SoftmaxGradient, along the last axis.
//
//   inputs      gradient, output: float32 or float64, of one shape
//   attributes  scale (default 1), a number in single precision; masked (default 0), 0 or 1
//   output      scale output (gradient - sum of gradient output), as kernels/softmax_gradient.hpp
//               says; with masked = 1 elements whose output is NaN count as zeros
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/softmax_gradient.hpp"
#include "operators/custom_operator.hpp"
#include "operators/rows.hpp"

namespace igonnx::plugin {

template <typename T>
class SoftmaxGradient {
 public:
  static constexpr const char* name = "SoftmaxGradient";
  static constexpr std::array inputs{element_type<T>, element_type<T>};
  static constexpr std::array outputs{element_type<T>};
  static constexpr std::array<std::size_t, 2> shaped_like{0, 1};
  static constexpr std::array in_place{InPlace{0, 0}, InPlace{1, 0}};

  explicit SoftmaxGradient(const Attributes& attributes)
      : scale_(attributes.number("scale", 1)), masked_(attributes.integer("masked", 0) != 0) {}

  void compute(const Call& call) const {
    const auto gradient = call.input<T>(0);
    const auto output = call.input<T>(1);
    require(gradient.shape == output.shape, "SoftmaxGradient: gradient and output differ in shape");
    T* result = call.output<T>(0, gradient.shape);
    const Rows rows(gradient.shape);
    for_rows(call, rows, elements_per_task, [&](std::size_t first, std::size_t count) {
      const std::size_t start = first * rows.columns;
      kernels::softmax_gradient(gradient.data + start, output.data + start, result + start, count,
                                rows.columns, scale_, masked_);
    });
  }

 private:
  static constexpr std::size_t elements_per_task = 32 * 1024;

  T scale_;
  bool masked_;
};

}  // namespace igonnx::plugin
