// kernels/bfloat16.hpp against the definition of rounding to nearest, ties to even.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "kernel_arrays.hpp"
#include "kernels/bfloat16.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

float widened(kernels::BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16U);
}

/// The nearest bfloat16 of a normal number: the significand rounded to 8 bits in exact arithmetic.
float nearest(float value) {
  int exponent = 0;
  const double significand = std::frexp(static_cast<double>(value), &exponent);
  return static_cast<float>(std::ldexp(std::nearbyint(std::ldexp(significand, 8)), exponent - 8));
}

}  // namespace

TEST(rounding_to_bfloat16_of_any_length) {
  for (std::size_t length : odd_lengths()) {
    for (std::size_t offset : misalignments) {
      Array<float> values(length, offset);
      Array<kernels::BFloat16> rounded(length, (offset * 3) % 7);
      Numbers numbers(static_cast<std::uint32_t>(length + offset));
      numbers.fill(values);
      kernels::round_to_bfloat16(values.data(), rounded.data(), length, 0.3F);
      for (std::size_t i = 0; i < length; ++i) {
        const float value = 0.3F * values[i];
        if (!std::isnormal(value)) continue;
        CHECK_EQUAL(widened(rounded[i]), nearest(value));
      }
      rounded.check_guard();
    }
  }
}

TEST(ties_infinities_and_nan_in_bfloat16) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float tie = 1 + 1.0F / 256;        // between 1 and 1 + 2^-7: down, to even
  const float upper_tie = 1 + 3.0F / 256;  // up, to even
  const std::vector<float> values{tie, upper_tie, -tie, infinity, -infinity, 3.4e38F, 0.0F};
  const std::vector<float> expected{1, 1 + 1.0F / 64, -1, infinity, -infinity, infinity, 0};
  for (std::size_t copies : {1, 9}) {  // short of a vector, and more than one
    std::vector<float> many;
    for (std::size_t i = 0; i < copies; ++i) many.insert(many.end(), values.begin(), values.end());
    many.push_back(std::bit_cast<float>(0x7fffffffU));  // a NaN that a carry would turn negative
    std::vector<kernels::BFloat16> rounded(many.size());
    kernels::round_to_bfloat16(many.data(), rounded.data(), many.size(), 1);
    for (std::size_t i = 0; i + 1 < many.size(); ++i) {
      CHECK_EQUAL(widened(rounded[i]), expected[i % expected.size()]);
    }
    CHECK(std::isnan(widened(rounded.back())));
  }
}
