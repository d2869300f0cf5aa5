// Sums in double precision.
#pragma once

#include <cstddef>

#include "kernels/multiversion.hpp"

namespace igonnx::kernels {

namespace detail {

template <typename T>
IGONNX_INLINE void accumulate(const T* values, double* sums, std::size_t count) {
  IGONNX_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) sums[i] += static_cast<double>(values[i]);
}

}  // namespace detail

/// sums += values, for `count` elements, each sum rounded once to double. The arrays must not
/// overlap.
IGONNX_MULTIVERSION static inline void accumulate(const float* values, double* sums,
                                                  std::size_t count) {
  detail::accumulate(values, sums, count);
}

IGONNX_MULTIVERSION static inline void accumulate(const double* values, double* sums,
                                                  std::size_t count) {
  detail::accumulate(values, sums, count);
}

}  // namespace igonnx::kernels
