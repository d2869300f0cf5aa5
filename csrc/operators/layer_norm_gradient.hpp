// The operator ai.igonnx::LayerNormGradient, over trailing axes.
//
//   inputs      gradient, x, scale, mean, inverse: float32 or float64; x is normalised over as many
//               trailing elements as scale has, and there is one mean and one inverse deviation for
//               each such row of x
//               residual (optional): shaped like x, added to the result
//   output      the gradient by x, shaped like x, as kernels/layer_norm_gradient.hpp says
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/layer_norm_gradient.hpp"
#include "operators/custom_operator.hpp"
#include "operators/rows.hpp"

namespace igonnx::plugin {

template <typename T>
class LayerNormGradient {
 public:
  static constexpr const char* name = "LayerNormGradient";
  static constexpr std::array inputs{element_type<T>, element_type<T>, element_type<T>,
                                     element_type<T>, element_type<T>, element_type<T>};
  static constexpr std::size_t required = 5;
  static constexpr std::array outputs{element_type<T>};
  static constexpr std::array<std::size_t, 2> shaped_like{0, 1};
  static constexpr std::array in_place{InPlace{0, 0}, InPlace{1, 0}, InPlace{5, 0}};

  explicit LayerNormGradient(const Attributes&) {}

  void compute(const Call& call) const {
    const auto gradient = call.input<T>(0);
    const auto x = call.input<T>(1);
    const auto scale = call.input<T>(2);
    const auto mean = call.input<T>(3);
    const auto inverse = call.input<T>(4);
    const bool continued = call.input_count() > 5;
    const auto residual = continued ? call.input<T>(5) : Tensor<const T>{nullptr, {}};
    require(gradient.shape == x.shape, "LayerNormGradient: gradient and x differ in shape");
    require(residual.data == nullptr || residual.shape == x.shape,
            "LayerNormGradient: residual and x differ in shape");
    const std::int64_t columns = scale.size();
    const std::int64_t rows = columns > 0 ? x.size() / columns : 0;
    require(rows * columns == x.size() && mean.size() == rows && inverse.size() == rows,
            "LayerNormGradient: scale, mean and inverse do not fit the rows of x");
    T* result = call.output<T>(0, x.shape);
    const Rows shape(rows, columns);
    for_rows(call, shape, elements_per_task, [&](std::size_t first, std::size_t count) {
      const std::size_t start = first * shape.columns;
      kernels::layer_norm_gradient(gradient.data + start, x.data + start, scale.data,
                                   mean.data + first, inverse.data + first,
                                   residual.data == nullptr ? nullptr : residual.data + start,
                                   result + start, count, shape.columns);
    });
  }

 private:
  static constexpr std::size_t elements_per_task = 32 * 1024;
};

}  // namespace igonnx::plugin
