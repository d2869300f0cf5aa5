// The operator ai.igonnx::GeluWithSlope: a forward pass that leaves its derivative behind.
//
//   inputs      x: float32 or float64; bias (optional): one number per element of the last axis of
//   x attributes  tanh (default 0): 1 for the tanh approximation outputs     Gelu(x + bias) and its
//   derivative, both shaped like x, as kernels/gelu.hpp says
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/gelu.hpp"
#include "operators/custom_operator.hpp"
#include "operators/rows.hpp"

namespace igonnx::plugin {

template <typename T>
class GeluWithSlope {
 public:
  static constexpr const char* name = "GeluWithSlope";
  static constexpr std::array inputs{element_type<T>, element_type<T>};
  static constexpr std::size_t required = 1;
  static constexpr std::array outputs{element_type<T>, element_type<T>};
  static constexpr std::array<std::size_t, 1> shaped_like{0};
  static constexpr std::array in_place{InPlace{0, 1}};

  explicit GeluWithSlope(const Attributes& attributes)
      : by_tanh_(attributes.integer("tanh", 0) != 0) {}

  void compute(const Call& call) const {
    const auto x = call.input<T>(0);
    const bool biased = call.input_count() > 1;
    const auto bias = biased ? call.input<T>(1) : Tensor<const T>{nullptr, {}};
    const Rows rows(x.shape);
    require(bias.data == nullptr || bias.size() == static_cast<std::int64_t>(rows.columns),
            "GeluWithSlope: the bias does not fit the last axis of x");
    T* value = call.output<T>(0, x.shape);
    T* slope = call.output<T>(1, x.shape);
    if (bias.data == nullptr) {
      call.parallel_blocks(static_cast<std::size_t>(x.size()), elements_per_task,
                           [&](std::size_t first, std::size_t count) {
                             kernels::gelu_with_slope(x.data + first, bias.data, value + first,
                                                      slope + first, count, by_tanh_);
                           });
      return;
    }
    for_rows(call, rows, elements_per_task, [&](std::size_t first, std::size_t count) {
      for (std::size_t row = first; row < first + count; ++row) {
        const std::size_t start = row * rows.columns;
        kernels::gelu_with_slope(x.data + start, bias.data, value + start, slope + start,
                                 rows.columns, by_tanh_);
      }
    });
  }

 private:
  static constexpr std::size_t elements_per_task = 16 * 1024;

  bool by_tanh_;
};

}  // namespace igonnx::plugin
