// The operator ai.igonnx::MaskedRows: inputs of which features are kept or taken from a baseline.
//
//   inputs      x, baseline [R, ...]: float32 or float64, of one shape
//               feature [R, ...] or [1, ...]: int32, which feature each element belongs to
//               row [B]: int64, the request that each row is made of
//               keep [B, F]: like x, how much of each feature is kept
//   output      [B, ...]: baseline + keep[feature] (x - baseline), as kernels/masking.hpp says
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/masking.hpp"
#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

template <typename T>
class MaskedRows {
 public:
  static constexpr const char* name = "MaskedRows";
  static constexpr std::array inputs{element_type<T>, element_type<T>, abi::ElementType::int32,
                                     abi::ElementType::int64, element_type<T>};
  static constexpr std::array outputs{element_type<T>};
  static constexpr std::array<std::size_t, 0> shaped_like{};  // the graph declares it

  explicit MaskedRows(const Attributes&) {}

  void compute(const Call& call) const {
    const auto x = call.input<T>(0);
    const auto baseline = call.input<T>(1);
    const auto feature = call.input<std::int32_t>(2);
    const auto row = call.input<std::int64_t>(3);
    const auto keep = call.input<T>(4);
    require(!x.shape.empty() && x.shape == baseline.shape,
            "MaskedRows: x and baseline differ in shape, or have no axis");
    require(row.shape.size() == 1 && keep.shape.size() == 2 && keep.shape[0] == row.shape[0],
            "MaskedRows: expected rows [B] and keep [B, F]");
    const std::int64_t requests = x.shape[0];
    const bool shared = !feature.shape.empty() && feature.shape[0] == 1;
    std::vector<std::int64_t> expected = x.shape;
    if (shared) expected[0] = 1;
    require(feature.shape == expected, "MaskedRows: feature does not fit x");
    require(std::all_of(row.data, row.data + row.size(),
                        [=](std::int64_t r) { return 0 <= r && r < requests; }),
            "MaskedRows: a row is of no request");

    std::vector<std::int64_t> shape = x.shape;
    shape[0] = row.shape[0];
    T* z = call.output<T>(0, shape);
    const auto rows = static_cast<std::size_t>(row.shape[0]);
    const std::size_t size = requests == 0 ? 0 : static_cast<std::size_t>(x.size() / requests);
    const auto features = static_cast<std::size_t>(keep.shape[1]);
    const std::size_t blocks = (size + elements_per_task - 1) / elements_per_task;
    call.parallel_for(rows * blocks, [&](std::size_t task) {
      const std::size_t which = task / blocks;
      const std::size_t first = task % blocks * elements_per_task;
      const std::size_t count = std::min(elements_per_task, size - first);
      const std::size_t from = static_cast<std::size_t>(row.data[which]) * size + first;
      kernels::mask(x.data + from, baseline.data + from, feature.data + (shared ? first : from),
                    keep.data + which * features, features, z + which * size + first, count);
    });
  }

 private:
  static constexpr std::size_t elements_per_task = 16 * 1024;
};

}  // namespace igonnx::plugin
