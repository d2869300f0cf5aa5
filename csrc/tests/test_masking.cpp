// kernels/masking.hpp against its definition.
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "kernel_arrays.hpp"
#include "kernels/masking.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

template <typename T>
void check_length(std::size_t length, std::size_t offset) {
  const std::vector<T> keep{0, 1, T(0.25)};
  Array<T> x(length, offset);
  Array<T> baseline(length, (offset * 5) % 11);
  Array<T> z(length, (offset * 3) % 7);
  Numbers numbers(static_cast<std::uint32_t>(length + offset));
  numbers.fill(x);
  numbers.fill(baseline);
  std::vector<std::int32_t> feature(length);
  std::vector<T> want(length);
  for (std::size_t i = 0; i < length; ++i) {
    feature[i] = static_cast<std::int32_t>((i * 7 + offset) % 5) - 1;  // -1 and 3: kept
    const T quarter = baseline[i] + T(0.25) * (x[i] - baseline[i]);
    want[i] = feature[i] == 0 ? baseline[i] : feature[i] == 2 ? quarter : x[i];
  }
  kernels::mask(x.data(), baseline.data(), feature.data(), keep.data(), keep.size(), z.data(),
                length);
  check_near(z, want, std::numeric_limits<T>::epsilon() * 4);
  z.check_guard();
}

template <typename T>
void check_lengths() {
  for (std::size_t length : odd_lengths()) {
    for (std::size_t offset : misalignments) check_length<T>(length, offset);
  }
}

}  // namespace

TEST(masking_of_any_length_float32) { check_lengths<float>(); }
TEST(masking_of_any_length_float64) { check_lengths<double>(); }

TEST(masking_is_exact_at_both_ends) {
  // What is left out does not shine through, were it infinite.
  const float infinite = std::numeric_limits<float>::infinity();
  const std::vector<float> x{0.1f, infinite, 1e30f}, baseline{infinite, 0.3f, 1e-30f};
  const std::vector<std::int32_t> feature{0, 1, 1};
  const std::vector<float> keep{1, 0};
  std::vector<float> z(3);
  kernels::mask(x.data(), baseline.data(), feature.data(), keep.data(), keep.size(), z.data(), 3);
  CHECK_EQUAL(z[0], 0.1f);
  CHECK_EQUAL(z[1], 0.3f);
  CHECK_EQUAL(z[2], 1e-30f);
}
