// The operator ai.igonnx::InterleavePhases: the last step of a strided convolution's input
// gradient.
//
// Input positions fall into stride phases by their remainder; a stride-1 convolution yields each
// phase on its own, and this operator deals them out.
//
//   inputs      input [N, C, H, W], then the phases that are not zero everywhere, [N, C, H", W"]
//               each, ordered by row and column remainder: float32, in the layout of `block`
//   attributes  block; strides, begins (2 each): the convolution's;
//               row_starts (strides[0] numbers), column_starts (strides[1] numbers): which pixel of
//               the phase, counted from the first one in the padding, the first in the tensor is;
//               -1 for remainders without a phase; lower, upper: if given, the result is zero where
//               not lower < input < upper
//   output      [N, C, H, W]
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/blocked.hpp"
#include "operators/blocked_images.hpp"
#include "operators/custom_operator.hpp"
#include "operators/rows.hpp"

namespace igonnx::plugin {

class InterleavePhases {
 public:
  static constexpr const char* name = "InterleavePhases";
  static constexpr std::array inputs{element_type<float>, element_type<float>};
  static constexpr std::array outputs{element_type<float>};
  static constexpr bool variadic = true;
  static constexpr std::array<std::size_t, 1> shaped_like{0};

  explicit InterleavePhases(const Attributes& attributes)
      : block_(block_of(attributes, name)),
        strides_(attributes.integers("strides")),
        begins_(attributes.integers("begins")),
        starts_{attributes.integers("row_starts"), attributes.integers("column_starts")},
        mask_(mask_of(attributes)) {
    require(strides_.size() == 2 && begins_.size() == 2 && strides_[0] > 0 && strides_[1] > 0 &&
                begins_[0] >= 0 && begins_[1] >= 0,
            "InterleavePhases: strides and begins must be 2 numbers each");
    for (std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
      require(starts_[axis].size() == static_cast<std::size_t>(strides_[axis]),
              "InterleavePhases: expected one start per phase");
    }
  }

  void compute(const Call& call) const {
    const auto input = call.input<float>(0);
    require_image(input.shape, block_, name);
    const auto phases = read_phases(call, input.shape);
    const std::int64_t height = input.shape[2];
    const std::int64_t width = input.shape[3];
    float* result = call.output<float>(0, input.shape);
    const auto run = kernels::blocked_kernels(block_).interleave_row;
    const Rows rows(planes_of(input.shape, block_) * static_cast<std::size_t>(height),
                    static_cast<std::size_t>(width * block_));
    for_rows(call, rows, task_elements, [&](std::size_t first, std::size_t count) {
      std::vector<kernels::PhaseRow> found(static_cast<std::size_t>(strides_[1]));
      for (auto row = static_cast<std::int64_t>(first);
           row < static_cast<std::int64_t>(first + count); ++row) {
        find(phases, row / height, row % height, found);
        const std::int64_t at = row * width * block_;
        run(found.data(), strides_[1], begins_[1], width, input.data + at, result + at, mask_);
      }
    });
  }

 private:
  static constexpr std::size_t task_elements = 16 * 1024;

  // Indexed by row remainder * strides[1] + column remainder; data is null where there is none.
  using Phases = std::vector<Tensor<const float>>;

  Phases read_phases(const Call& call, const Shape& shape) const {
    Phases phases(static_cast<std::size_t>(strides_[0] * strides_[1]), {nullptr, {}});
    std::size_t next = 1;
    for (std::size_t phase = 0; phase < phases.size(); ++phase) {
      const auto columns = static_cast<std::size_t>(strides_[1]);
      if (starts_[0][phase / columns] < 0 || starts_[1][phase % columns] < 0) continue;
      require(next < call.input_count(), "InterleavePhases: fewer phases than starts");
      phases[phase] = call.input<float>(next++);
      const Shape& given = phases[phase].shape;
      require_alike(given, shape, name);
    }
    require(next == call.input_count(), "InterleavePhases: more phases than starts");
    return phases;
  }

  // The phases as they lie in row `h` of plane `plane`.
  void find(const Phases& phases, std::int64_t plane, std::int64_t h,
            std::vector<kernels::PhaseRow>& found) const {
    const auto remainder = static_cast<std::size_t>((h + begins_[0]) % strides_[0]);
    const std::int64_t y = (h + begins_[0]) / strides_[0] - starts_[0][remainder];
    for (std::size_t column = 0; column < found.size(); ++column) {
      const auto& phase = phases[remainder * found.size() + column];
      found[column] = {};
      if (phase.data == nullptr || y < 0 || y >= phase.shape[2]) continue;
      const std::int64_t width = phase.shape[3];
      found[column] = {phase.data + (plane * phase.shape[2] + y) * width * block_,
                       starts_[1][column], width};
    }
  }

  std::int64_t block_;
  Shape strides_;
  Shape begins_;
  std::array<Shape, 2> starts_;
  kernels::Mask mask_;
};

}  // namespace igonnx::plugin
