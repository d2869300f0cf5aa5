// The gradient of softmax, from its output: y (g - sum of g y), row by row.
#pragma once

#include <cstddef>

#include "kernels/multiversion.hpp"
#include "kernels/row_sums.hpp"

namespace igonnx::kernels {

namespace detail {

template <bool masked, typename T>
IGONNX_INLINE void softmax_gradient(const T* gradient, const T* output, T* result, std::size_t rows,
                                    std::size_t columns, T scale) {
  // A NaN of the output counts as 0, and so does the gradient there.
  const auto kept = [](T y, T value) { return masked ? (y == y ? value : T{0}) : value; };
  for (std::size_t row = 0; row < rows; ++row) {
    const T* g = gradient + row * columns;
    const T* y = output + row * columns;
    T* out = result + row * columns;
    const T total = sum_of<T>(columns, [&](std::size_t i) { return kept(y[i], g[i] * y[i]); });
    IGONNX_INDEPENDENT
    for (std::size_t i = 0; i < columns; ++i) {
      out[i] = kept(y[i], (scale * y[i]) * (g[i] - total));
    }
  }
}

}  // namespace detail

/// result = scale y (g - total), where total is the sum of g y over the row, for `rows` rows of
/// `columns` elements. With `masked`, elements whose output is NaN count as zeros: so they are
/// where a model puts something else in the place of a row that was masked throughout. `result` may
/// be `gradient` or `output` themselves, but not overlap them otherwise.
IGONNX_MULTIVERSION static inline void softmax_gradient(const float* gradient, const float* output,
                                                        float* result, std::size_t rows,
                                                        std::size_t columns, float scale,
                                                        bool masked) {
  if (masked) {
    detail::softmax_gradient<true>(gradient, output, result, rows, columns, scale);
  } else {
    detail::softmax_gradient<false>(gradient, output, result, rows, columns, scale);
  }
}

IGONNX_MULTIVERSION static inline void softmax_gradient(const double* gradient,
                                                        const double* output, double* result,
                                                        std::size_t rows, std::size_t columns,
                                                        double scale, bool masked) {
  if (masked) {
    detail::softmax_gradient<true>(gradient, output, result, rows, columns, scale);
  } else {
    detail::softmax_gradient<false>(gradient, output, result, rows, columns, scale);
  }
}

}  // namespace igonnx::kernels
