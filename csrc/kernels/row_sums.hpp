// Sums over a row in lanes, so that they vectorise without leave to reorder floating-point sums.
#pragma once

#include <array>
#include <cstddef>

#include "kernels/multiversion.hpp"

namespace igonnx::kernels::detail {

/// The sum of term(i) for i below `count`, of type T. Element i goes to lane i modulo the number of
/// lanes, and lanes are added pairwise: the rounding error grows with count / lanes, and does not
/// depend on the width of the processor's vectors.
template <typename T, typename Term>
IGONNX_INLINE T sum_of(std::size_t count, const Term& term) {
  constexpr std::size_t lanes = 128 / sizeof(T);
  std::array<T, lanes> sums{};
  const std::size_t whole = count - count % lanes;
  for (std::size_t i = 0; i < whole; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += term(i + lane);
  }
  for (std::size_t i = whole; i < count; ++i) sums[i - whole] += term(i);
  for (std::size_t half = lanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

}  // namespace igonnx::kernels::detail
