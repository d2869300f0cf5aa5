// The operator ai.igonnx::StemGradient: the input gradient of a convolution with few input
// channels, as the first one of a network on images.
//
//   inputs      gradient [N, O, H', W'], weight [O, C, kernel, kernel], input [N, C, H, W], C at
//   most
//               4: float32, in the ordinary layout; of the input only the shape is used
//   attributes  kernel_shape, strides, dilations, begins: the convolution's
//   output      [N, C, H, W]
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.hpp"
#include "kernels/blocked.hpp"
#include "operators/blocked_images.hpp"
#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

class StemGradient {
 public:
  static constexpr const char* name = "StemGradient";
  static constexpr std::array inputs{element_type<float>, element_type<float>, element_type<float>};
  static constexpr std::array outputs{element_type<float>};
  static constexpr std::array<std::size_t, 1> shaped_like{2};

  explicit StemGradient(const Attributes& attributes) : sliding_(sliding_of(attributes, name)) {}

  void compute(const Call& call) const {
    const auto gradient = call.input<float>(0);
    const auto weight = call.input<float>(1);
    const auto input = call.input<float>(2);
    require_image(gradient.shape, 1, name);
    require_image(input.shape, 1, name);
    const std::int64_t filters = gradient.shape[1];
    const std::int64_t channels = input.shape[1];
    require(channels >= 1 && channels <= 4, "StemGradient: expected 1 to 4 input channels");
    require(gradient.shape[0] == input.shape[0],
            "StemGradient: gradient and input differ in examples");
    require(weight.shape == Shape{filters, channels, sliding_[0].kernel, sliding_[1].kernel},
            "StemGradient: the weights do not fit gradient, input and kernel_shape");
    const auto sliding = sized(sliding_, input.shape, gradient.shape);
    float* result = call.output<float>(0, input.shape);
    const auto& [down, across] = sliding;
    const std::int64_t tasks_per_image = (down.inputs + rows_per_task - 1) / rows_per_task;
    const auto run = kernels::blocked_kernels(16).stem_gradient;
    call.parallel_for(
        static_cast<std::size_t>(input.shape[0] * tasks_per_image), [&](std::size_t index) {
          const auto image = static_cast<std::int64_t>(index) / tasks_per_image;
          const std::int64_t first =
              static_cast<std::int64_t>(index) % tasks_per_image * rows_per_task;
          std::vector<kernels::StemTap> taps(
              static_cast<std::size_t>(sliding[0].kernel * sliding[1].kernel));
          std::vector<kernels::ColumnTap> column_taps(static_cast<std::size_t>(sliding[1].kernel));
          kernels::StemTask task{
              sliding[0],
              sliding[1],
              channels,
              filters,
              gradient.data + image * filters * sliding[0].outputs * sliding[1].outputs,
              weight.data,
              result + image * channels * sliding[0].inputs * sliding[1].inputs,
              first,
              std::min(first + rows_per_task, sliding[0].inputs),
              taps.data(),
              column_taps.data(),
              nullptr};
          static thread_local Buffer buffer;
          task.rows = buffer.of<float>(static_cast<std::size_t>(kernels::stem_room(task)));
          run(task);
        });
  }

 private:
  static constexpr std::int64_t rows_per_task = 8;

  std::array<kernels::Sliding, 2> sliding_;
};

}  // namespace igonnx::plugin
