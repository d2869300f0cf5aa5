// The operator ai.igonnx::MaxPoolGradient: the input gradient of max pooling.
//
//   inputs      gradient and output [N, C, H', W'], input [N, C, H, W]: float32, in the layout of
//   the
//               attribute `block`
//   attributes  block; kernel_shape, strides, dilations, begins: the pooling's; lower, upper: if
//               given, the gradient is set to zero where not lower < input < upper
//   output      [N, C, H, W]: each window's gradient goes to its first maximum
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/blocked.hpp"
#include "operators/blocked_images.hpp"
#include "operators/custom_operator.hpp"
#include "operators/rows.hpp"

namespace igonnx::plugin {

class MaxPoolGradient {
 public:
  static constexpr const char* name = "MaxPoolGradient";
  static constexpr std::array inputs{element_type<float>, element_type<float>, element_type<float>};
  static constexpr std::array outputs{element_type<float>};
  static constexpr std::array<std::size_t, 1> shaped_like{2};

  explicit MaxPoolGradient(const Attributes& attributes)
      : block_(block_of(attributes, name)),
        sliding_(sliding_of(attributes, name)),
        mask_(mask_of(attributes)) {}

  void compute(const Call& call) const {
    const auto gradient = call.input<float>(0);
    const auto maximum = call.input<float>(1);
    const auto input = call.input<float>(2);
    require_image(input.shape, block_, name);
    require(gradient.shape == maximum.shape,
            "MaxPoolGradient: gradient and output differ in shape");
    require_alike(gradient.shape, input.shape, name);
    const auto [down, across] = sized(sliding_, input.shape, gradient.shape);
    float* result = call.output<float>(0, input.shape);
    const auto run = kernels::blocked_kernels(block_).max_pool_gradient;
    const std::int64_t inside = down.inputs * across.inputs * block_;
    const std::int64_t outside = down.outputs * across.outputs * block_;
    const Rows planes(planes_of(input.shape, block_), static_cast<std::size_t>(inside));
    for_rows(call, planes, task_elements, [&](std::size_t first, std::size_t count) {
      for (std::size_t plane = first; plane < first + count; ++plane) {
        run(down, across, gradient.data + plane * outside, input.data + plane * inside,
            maximum.data + plane * outside, result + plane * inside, mask_);
      }
    });
  }

 private:
  static constexpr std::size_t task_elements = 16 * 1024;

  std::int64_t block_;
  std::array<kernels::Sliding, 2> sliding_;
  kernels::Mask mask_;
};

}  // namespace igonnx::plugin
