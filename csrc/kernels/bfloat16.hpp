// Rounding to bfloat16: the upper half of a float32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/multiversion.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace igonnx::kernels {

/// The bits of a bfloat16: sign, 8 bits of exponent, 7 of fraction.
using BFloat16 = std::uint16_t;

namespace detail {

IGONNX_MULTIVERSION static inline void round_to_bfloat16(const float* values, BFloat16* rounded,
                                                         std::size_t count, float scale) {
  IGONNX_INDEPENDENT
  for (std::size_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(scale * values[i]);
    const std::uint32_t nearest = bits + 0x7fffU + ((bits >> 16U) & 1U);
    // Rounding could carry a NaN's fraction over into the sign: a quiet one is made of it instead.
    const std::uint32_t quiet = bits | 0x400000U;
    const bool ordered = (bits & 0x7fffffffU) <= 0x7f800000U;
    rounded[i] = static_cast<BFloat16>((ordered ? nearest : quiet) >> 16U);
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
#define IGONNX_BFLOAT16_TARGET __attribute__((target("avx512f,avx512bf16")))

/// Rounds whole vectors of 32 with the processor's own conversion; returns how many elements.
IGONNX_BFLOAT16_TARGET inline std::size_t round_vectors_to_bfloat16(const float* values,
                                                                    BFloat16* rounded,
                                                                    std::size_t count,
                                                                    float scale) {
  const __m512 factor = _mm512_set1_ps(scale);
  std::size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m512 low = _mm512_mul_ps(factor, _mm512_loadu_ps(values + i));
    const __m512 high = _mm512_mul_ps(factor, _mm512_loadu_ps(values + i + 16));
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    std::memcpy(rounded + i, &both, sizeof both);
  }
  return i;
}

inline bool has_bfloat16_vectors() {
  static const bool has =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bf16") != 0;
  return has;
}

#undef IGONNX_BFLOAT16_TARGET
#endif

}  // namespace detail

/// rounded[i] = scale * values[i] in bfloat16, to nearest, ties to even, for `count` elements. The
/// relative error is at most 2^-8 (subnormal numbers may become zero); what exceeds the largest
/// bfloat16 becomes infinite, and NaN stays NaN. The arrays must not overlap.
inline void round_to_bfloat16(const float* values, BFloat16* rounded, std::size_t count,
                              float scale) {
  std::size_t done = 0;
#if defined(__x86_64__) && defined(__GNUC__)
  if (detail::has_bfloat16_vectors()) {
    done = detail::round_vectors_to_bfloat16(values, rounded, count, scale);
  }
#endif
  detail::round_to_bfloat16(values + done, rounded + done, count - done, scale);
}

}  // namespace igonnx::kernels
