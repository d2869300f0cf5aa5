// exp(x) for x <= 0 in a form that compilers vectorise.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/multiversion.hpp"

namespace igonnx::kernels::detail {

/// exp(x) for x <= 0, to a relative error of 2e-7; below -87, where the smallest normal numbers
/// begin, exp(-87). A NaN stays one.
///
/// exp(x) = 2^k exp(r) with whole k and |r| <= log(2) / 2. On that interval the polynomial
/// 1 + r + r^2 (c0 + c1 r + ...) was fitted to exp for the smallest relative error (3e-9).
IGONNX_INLINE float exp_nonpositive(float x) {
  constexpr float smallest = -87;
  constexpr float per_log2 = 1.44269504088896341F;  // 1 / log(2)
  // log(2) in two parts: k times the first one is exact.
  constexpr float log2_high = 0.693359375F;
  constexpr float log2_low = -2.12194440054690581e-4F;
  // Added to a small number this leaves the nearest whole number in the last bits.
  constexpr float whole = 12582912;  // 1.5 * 2^23
  x = x < smallest ? smallest : x;
  const float shifted = x * per_log2 + whole;
  const float k = shifted - whole;
  const float r = (x - k * log2_high) - k * log2_low;
  float p = 0.0013813142368530127F;
  p = p * r + 0.00836941904362214F;
  p = p * r + 0.04166845683309403F;
  p = p * r + 0.16666514789117057F;
  p = p * r + 0.49999993050492053F;
  p = (p * r) * r + r + 1;
  // The exponent's field of a float is biased by 127; all bits above those of k are shifted out.
  const auto power = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23U;
  return p * std::bit_cast<float>(power);
}

IGONNX_INLINE double exp_nonpositive(double x) { return std::exp(x); }

}  // namespace igonnx::kernels::detail
