// The gradient of layer normalisation (Ba, Kiros and Hinton, arXiv:1607.06450) by its input.
#pragma once

#include <cstddef>

#include "kernels/multiversion.hpp"
#include "kernels/row_sums.hpp"

namespace igonnx::kernels {

namespace detail {

template <typename T>
IGONNX_INLINE void layer_norm_gradient(const T* gradient, const T* x, const T* scale, const T* mean,
                                       const T* inverse, const T* residual, T* result,
                                       std::size_t rows, std::size_t columns) {
  for (std::size_t row = 0; row < rows; ++row) {
    const T* g = gradient + row * columns;
    const T* in = x + row * columns;
    T* out = result + row * columns;
    const T centre = mean[row];
    const T factor = inverse[row];
    const T average = sum_of<T>(columns, [&](std::size_t i) { return g[i] * scale[i]; }) /
                      static_cast<T>(columns);
    const T along =
        sum_of<T>(columns, [&](std::size_t i) { return (g[i] * scale[i]) * (in[i] - centre); }) *
        factor / static_cast<T>(columns);
    // By n = (x - mean) inverse: (h - average - n along) inverse with h = g scale.
    const T slope = factor * along;
    if (residual == nullptr) {
      IGONNX_INDEPENDENT
      for (std::size_t i = 0; i < columns; ++i) {
        out[i] = ((g[i] * scale[i] - average) - (in[i] - centre) * slope) * factor;
      }
    } else {
      const T* other = residual + row * columns;
      IGONNX_INDEPENDENT
      for (std::size_t i = 0; i < columns; ++i) {
        const T own = ((g[i] * scale[i] - average) - (in[i] - centre) * slope) * factor;
        out[i] = own + other[i];
      }
    }
  }
}

}  // namespace detail

/// result = (h - mean(h) - n mean(h n)) inverse + residual with h = gradient scale and
/// n = (x - mean) inverse, for `rows` rows of `columns` elements: `scale` has one number per
/// column, `mean` and `inverse` (of the deviation) one per row. A null `residual` is zero. `result`
/// may be `gradient`, `x` or `residual` themselves, but not overlap them otherwise.
IGONNX_MULTIVERSION static inline void layer_norm_gradient(const float* gradient, const float* x,
                                                           const float* scale, const float* mean,
                                                           const float* inverse,
                                                           const float* residual, float* result,
                                                           std::size_t rows, std::size_t columns) {
  detail::layer_norm_gradient(gradient, x, scale, mean, inverse, residual, result, rows, columns);
}

IGONNX_MULTIVERSION static inline void layer_norm_gradient(const double* gradient, const double* x,
                                                           const double* scale, const double* mean,
                                                           const double* inverse,
                                                           const double* residual, double* result,
                                                           std::size_t rows, std::size_t columns) {
  detail::layer_norm_gradient(gradient, x, scale, mean, inverse, residual, result, rows, columns);
}

}  // namespace igonnx::kernels
