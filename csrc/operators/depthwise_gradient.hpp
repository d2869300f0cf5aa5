// The operator ai.igonnx::DepthwiseGradient: the input gradient of a depthwise convolution.
//
//   inputs      gradient [N, C, H', W'], weight [C/b, kernel, kernel, b], input [N, C, H, W]:
//   float32;
//               images in the blocked layout of the attribute `block` (8 or 16)
//   attributes  block; kernel_shape, strides, dilations, begins: the convolution's; lower, upper:
//               if given, the gradient is set to zero where not lower < input < upper
//   output      [N, C, H, W]
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/blocked.hpp"
#include "operators/blocked_images.hpp"
#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

class DepthwiseGradient {
 public:
  static constexpr const char* name = "DepthwiseGradient";
  static constexpr std::array inputs{element_type<float>, element_type<float>, element_type<float>};
  static constexpr std::array outputs{element_type<float>};
  static constexpr std::array<std::size_t, 1> shaped_like{2};

  explicit DepthwiseGradient(const Attributes& attributes)
      : block_(block_of(attributes, name)),
        sliding_(sliding_of(attributes, name)),
        mask_(mask_of(attributes)) {
    require(block_ > 1, "DepthwiseGradient: expected the blocked layout");
  }

  void compute(const Call& call) const {
    const auto gradient = call.input<float>(0);
    const auto weight = call.input<float>(1);
    const auto input = call.input<float>(2);
    require_image(input.shape, block_, name);
    const std::int64_t blocks = input.shape[1] / block_;
    require_alike(gradient.shape, input.shape, name);
    require(weight.shape == Shape{blocks, sliding_[0].kernel, sliding_[1].kernel, block_},
            "DepthwiseGradient: the weights do not fit the input and kernel_shape");
    const auto [down, across] = sized(sliding_, input.shape, gradient.shape);
    float* result = call.output<float>(0, input.shape);

    const std::int64_t rows = std::max<std::int64_t>(
        1, task_elements / std::max<std::int64_t>(1, across.inputs * block_));
    const std::int64_t tasks_per_plane = (down.inputs + rows - 1) / rows;
    const auto run = kernels::blocked_kernels(block_).depthwise_gradient;
    const std::size_t planes = planes_of(input.shape, block_);
    call.parallel_for(planes * tasks_per_plane, [&](std::size_t task) {
      const auto plane = static_cast<std::int64_t>(task) / tasks_per_plane;
      const std::int64_t first = static_cast<std::int64_t>(task) % tasks_per_plane * rows;
      std::vector<kernels::Tap> taps(static_cast<std::size_t>(down.kernel * across.kernel));
      std::vector<kernels::ColumnTap> across_taps(static_cast<std::size_t>(across.kernel));
      const std::int64_t inside = plane * down.inputs * across.inputs * block_;
      run(down, across, gradient.data + plane * down.outputs * across.outputs * block_,
          weight.data + plane % blocks * down.kernel * across.kernel * block_, input.data + inside,
          result + inside, first, std::min(first + rows, down.inputs), mask_, taps.data(),
          across_taps.data());
    });
  }

 private:
  static constexpr std::int64_t task_elements = 16 * 1024;

  std::int64_t block_;
  std::array<kernels::Sliding, 2> sliding_;
  kernels::Mask mask_;
};

}  // namespace igonnx::plugin
