// The operator ai.igonnx::ActivationMask.
//
//   inputs      gradient, output: float32 or float64, of one shape
//   attributes  lower (default 0), upper (default infinity): numbers, single precision
//   output      lower < output < upper ? gradient : 0, as kernels/activation_mask.hpp says
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "kernels/activation_mask.hpp"
#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

template <typename T>
class ActivationMask {
 public:
  static constexpr const char* name = "ActivationMask";
  static constexpr std::array inputs{element_type<T>, element_type<T>};
  static constexpr std::array outputs{element_type<T>};
  static constexpr std::array<std::size_t, 2> shaped_like{0, 1};
  // The kernel reads an element before it writes it.
  static constexpr std::array in_place{InPlace{0, 0}, InPlace{1, 0}};

  explicit ActivationMask(const Attributes& attributes)
      : lower_(attributes.number("lower", 0)),
        upper_(attributes.number("upper", std::numeric_limits<float>::infinity())) {}

  void compute(const Call& call) const {
    const auto gradient = call.input<T>(0);
    const auto activation = call.input<T>(1);
    require(gradient.shape == activation.shape,
            "ActivationMask: gradient and output differ in shape");
    T* result = call.output<T>(0, gradient.shape);
    call.parallel_blocks(static_cast<std::size_t>(gradient.size()), block_bytes / sizeof(T),
                         [&](std::size_t first, std::size_t size) {
                           kernels::activation_mask(gradient.data + first, activation.data + first,
                                                    result + first, size, lower_, upper_);
                         });
  }

 private:
  // Output per task: three such blocks stay in a core's second-level cache.
  static constexpr std::size_t block_bytes = 64 * 1024;

  T lower_;
  T upper_;
};

}  // namespace igonnx::plugin
