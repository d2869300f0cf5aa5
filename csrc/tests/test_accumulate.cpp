// kernels/accumulate.hpp against its definition.
#include <vector>

#include "check.hpp"
#include "kernel_arrays.hpp"
#include "kernels/accumulate.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

template <typename T>
void check_lengths() {
  for (std::size_t length : odd_lengths()) {
    for (std::size_t offset : misalignments) {
      Array<T> values(length, offset);
      Array<double> sums(length, (offset * 3) % 7);
      Numbers numbers(static_cast<std::uint32_t>(length));
      numbers.fill(values);
      numbers.fill(sums);
      std::vector<double> want(sums.begin(), sums.end());
      for (std::size_t i = 0; i < length; ++i) want[i] += static_cast<double>(values[i]);
      kernels::accumulate(values.data(), sums.data(), length);
      check_near(sums, want, 0);
      sums.check_guard();
    }
  }
}

}  // namespace

TEST(accumulate_of_any_length_float32) { check_lengths<float>(); }
TEST(accumulate_of_any_length_float64) { check_lengths<double>(); }

TEST(accumulate_keeps_what_float32_would_lose) {
  Array<float> values(33);
  Array<double> sums(33);
  for (float& value : values) value = 1e-9f;
  for (double& sum : sums) sum = 1;
  kernels::accumulate(values.data(), sums.data(), 33);
  for (double sum : sums) CHECK_EQUAL(sum, 1 + static_cast<double>(1e-9f));
}
