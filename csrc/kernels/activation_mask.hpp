// The gradient of clipping activations (ReLU, ReLU6, Clip), from the activation's output.
#pragma once

#include <cstddef>

#include "kernels/multiversion.hpp"

namespace igonnx::kernels {

namespace detail {

template <typename T>
IGONNX_INLINE void activation_mask(const T* gradient, const T* output, T* result, std::size_t count,
                                   T lower, T upper) {
  IGONNX_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) {
    // Everything is loaded and compared (`&`, not `&&`) whatever the outcome: no branch, no masked
    // load.
    const T value = gradient[i];
    const bool passes = (output[i] > lower) & (output[i] < upper);
    result[i] = passes ? value : T{0};
  }
}

}  // namespace detail

/// result = lower < output < upper ? gradient : 0, for `count` elements. Exact. A NaN in `output`
/// gives 0, and so does a masked NaN in `gradient`. `result` may be `gradient` or `output`
/// themselves, but not overlap them otherwise.
IGONNX_MULTIVERSION static inline void activation_mask(const float* gradient, const float* output,
                                                       float* result, std::size_t count,
                                                       float lower, float upper) {
  detail::activation_mask(gradient, output, result, count, lower, upper);
}

IGONNX_MULTIVERSION static inline void activation_mask(const double* gradient, const double* output,
                                                       double* result, std::size_t count,
                                                       double lower, double upper) {
  detail::activation_mask(gradient, output, result, count, lower, upper);
}

}  // namespace igonnx::kernels
