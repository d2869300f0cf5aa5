// kernels/activation_mask.hpp against its definition, element by element.
#include <limits>
#include <vector>

#include "check.hpp"
#include "kernel_arrays.hpp"
#include "kernels/activation_mask.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

template <typename T>
std::vector<T> expected(const Array<T>& gradient, const Array<T>& output, T lower, T upper) {
  std::vector<T> result(gradient.size());
  for (std::size_t i = 0; i < result.size(); ++i) {
    const bool passes = lower < output[i] && output[i] < upper;
    result[i] = passes ? gradient[i] : T{0};
  }
  return result;
}

template <typename T>
void check_length(std::size_t length, std::size_t offset, T lower, T upper) {
  Array<T> gradient(length, offset);
  Array<T> output(length, (offset * 5) % 11);
  Array<T> result(length, (offset * 3) % 7);
  Numbers numbers(static_cast<std::uint32_t>(length + offset));
  numbers.fill(gradient);
  numbers.fill(output);
  const std::vector<T> want = expected(gradient, output, lower, upper);
  kernels::activation_mask(gradient.data(), output.data(), result.data(), length, lower, upper);
  check_near(result, want, 0);
  result.check_guard();
  kernels::activation_mask(gradient.data(), output.data(), output.data(), length, lower, upper);
  check_near(output, want, 0);  // in place of one input and then of the other
}

template <typename T>
void check_lengths() {
  for (std::size_t length : odd_lengths()) {
    for (std::size_t offset : misalignments) {
      check_length<T>(length, offset, 0, std::numeric_limits<T>::infinity());
      check_length<T>(length, offset, 0, 6);
      check_length<T>(length, offset, -1, 1);
    }
  }
}

}  // namespace

TEST(activation_mask_of_any_length_float32) { check_lengths<float>(); }
TEST(activation_mask_of_any_length_float64) { check_lengths<double>(); }

TEST(activation_mask_in_place_of_the_gradient) {
  for (std::size_t length : odd_lengths()) {
    Array<float> gradient(length, 1);
    Array<float> output(length, 3);
    Numbers numbers(7);
    numbers.fill(gradient);
    numbers.fill(output);
    const std::vector<float> want = expected(gradient, output, 0.0f, 6.0f);
    kernels::activation_mask(gradient.data(), output.data(), gradient.data(), length, 0.0f, 6.0f);
    check_near(gradient, want, 0);
    gradient.check_guard();
  }
}

TEST(activation_mask_stops_nan) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t length : odd_lengths()) {
    Array<float> gradient(length);
    Array<float> output(length);
    Array<float> result(length);
    for (std::size_t i = 0; i < length; ++i) {
      gradient[i] = i % 3 == 0 ? nan : 2;
      output[i] = i % 3 == 1 ? nan : i % 6 == 0 ? 1.0f : -1.0f;
    }
    kernels::activation_mask(gradient.data(), output.data(), result.data(), length, 0.0f, 6.0f);
    check_near(result, expected(gradient, output, 0.0f, 6.0f), 0);
  }
}
