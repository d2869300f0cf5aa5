// Gelu (Hendrycks and Gimpel, arXiv:1606.08415) and its slope, in one pass.
#pragma once

#include <cmath>
#include <cstddef>

#include "kernels/exponential.hpp"
#include "kernels/multiversion.hpp"

namespace igonnx::kernels {

namespace detail {

template <typename T>
struct ValueAndSlope {
  T value;
  T slope;
};

/// Phi(-x) / exp(-x^2 / 2) for x >= 0, where Phi is the normal distribution function, to a relative
/// error of 5e-7: erfcx(z) / 2 with z = x / sqrt(2). Divided by t = 1 / (1 + 0.3 z) that is smooth
/// in t, which runs from 1 down to 0.26 at z = 9.4; there a polynomial was fitted for the smallest
/// relative error (2e-8), and beyond it exp(-x^2 / 2) is below the normal numbers.
IGONNX_INLINE float scaled_tail(float x) {
  constexpr float scale = 0.3F * 0.70710678118654752F;
  const float t = 1 / (1 + scale * x);
  float p = -0.12940698862075806F;
  p = p * t + 0.4849538207054138F;
  p = p * t - 0.5109044909477234F;
  p = p * t + 0.5459885001182556F;
  p = p * t - 0.09331770986318588F;
  p = p * t + 0.2142852395772934F;
  p = p * t + 0.14852674305438995F;
  p = p * t + 0.17068471014499664F;
  p = p * t + 0.16919010877609253F;
  return (0.5F * t) * p;
}

/// x Phi(x) and Phi(x) + x phi(x), where phi is the density of the normal distribution. Of float32,
/// to an error of 3e-7 times the larger of 1 and |x|.
IGONNX_INLINE ValueAndSlope<float> gelu(float x) {
  constexpr float per_sqrt_two_pi = 0.398942280401432678F;
  // Beyond, Phi is 0 or 1 to the last digit and x phi is nothing.
  constexpr float largest = 13.2F;
  float size = x < 0 ? -x : x;
  size = size > largest ? largest : size;
  const float density = exp_nonpositive(-0.5F * size * size);
  const float tail = density * scaled_tail(size);
  const float below = x < -largest ? 0 : tail;
  const float phi = x < 0 ? below : 1 - tail;
  const float held = x < 0 ? -size : size;
  return {x * phi, phi + held * (density * per_sqrt_two_pi)};
}

/// The same by the standard library's functions.
IGONNX_INLINE ValueAndSlope<double> gelu(double x) {
  constexpr double sqrt_half = 0.707106781186547524;
  constexpr double per_sqrt_two_pi = 0.398942280401432678;
  const double phi = 0.5 * std::erfc(-x * sqrt_half);
  const double density = std::exp(-0.5 * x * x) * per_sqrt_two_pi;
  // At the ends x times nothing is nothing, not NaN.
  return {x * phi, density > 0 ? phi + x * density : phi + density};
}

/// x (1 + tanh(c (x + a x^3))) / 2 with c = sqrt(2 / pi), a = 0.044715, and its slope. With
/// s = sigmoid(2 c (x + a x^3)) that is x s and s + x s (1 - s) 2 c (1 + 3 a x^2).
template <typename T>
IGONNX_INLINE ValueAndSlope<T> gelu_tanh(T x) {
  constexpr T twice_c = static_cast<T>(1.59576912160573082);
  constexpr T a = static_cast<T>(0.044715);
  // Beyond 10, s is 0 or 1 to the last digit and no longer changes.
  constexpr T largest = 10;
  T size = x < 0 ? -x : x;
  size = size > largest ? largest : size;
  const T square = size * size;
  const T power = exp_nonpositive(-twice_c * size * (1 + a * square));
  const T upper = 1 / (1 + power);  // sigmoid at |x|
  const T lower = power * upper;    // sigmoid at -|x|, which is 1 - upper
  const T s = x < 0 ? (x < -largest ? 0 : lower) : upper;
  const T held = x < 0 ? -size : size;
  const T inner = twice_c * (1 + 3 * a * square);
  return {x * s, s + held * (upper * lower) * inner};
}

template <bool by_tanh, bool biased, typename T>
IGONNX_INLINE void gelu_with_slope(const T* x, const T* bias, T* value, T* slope,
                                   std::size_t count) {
  IGONNX_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) {
    const T sum = biased ? x[i] + bias[i] : x[i];
    const auto result = by_tanh ? gelu_tanh(sum) : gelu(sum);
    value[i] = result.value;
    slope[i] = result.slope;
  }
}

/// One loop for each kind: a choice inside would keep compilers from vectorising.
template <typename T>
IGONNX_INLINE void gelu_with_slope(const T* x, const T* bias, T* value, T* slope, std::size_t count,
                                   bool by_tanh) {
  if (by_tanh && bias != nullptr) {
    gelu_with_slope<true, true>(x, bias, value, slope, count);
  } else if (by_tanh) {
    gelu_with_slope<true, false>(x, bias, value, slope, count);
  } else if (bias != nullptr) {
    gelu_with_slope<false, true>(x, bias, value, slope, count);
  } else {
    gelu_with_slope<false, false>(x, bias, value, slope, count);
  }
}

}  // namespace detail

/// value = Gelu(x + bias) and slope = its derivative, for `count` elements; a null `bias` is zero.
/// `by_tanh` takes the tanh approximation. `value` or `slope` may be `x` itself; otherwise nothing
/// overlaps. A NaN gives NaN, infinity itself and slope 1, minus infinity NaN and slope 0.
IGONNX_MULTIVERSION static inline void gelu_with_slope(const float* x, const float* bias,
                                                       float* value, float* slope,
                                                       std::size_t count, bool by_tanh) {
  detail::gelu_with_slope(x, bias, value, slope, count, by_tanh);
}

static inline void gelu_with_slope(const double* x, const double* bias, double* value,
                                   double* slope, std::size_t count, bool by_tanh) {
  detail::gelu_with_slope(x, bias, value, slope, count, by_tanh);
}

}  // namespace igonnx::kernels
