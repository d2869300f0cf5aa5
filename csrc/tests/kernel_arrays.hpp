// Arrays to run kernels on: odd lengths, misaligned, and with nothing around them to touch unseen.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "check.hpp"

namespace igonnx::tests {

/// Every length from 0 to 70, and around 1000: below, at and past any vector width and unrolling.
inline std::vector<std::size_t> odd_lengths() {
  std::vector<std::size_t> lengths;
  for (std::size_t length = 0; length <= 70; ++length) lengths.push_back(length);
  for (std::size_t length : {999, 1000, 1001}) lengths.push_back(length);
  return lengths;
}

/// Elements by which an array starts late: multiples of the element's size, as the runtime has
/// them.
inline constexpr std::size_t misalignments[] = {0, 1, 3, 7};

/// `length` elements, `offset` elements behind the start of an allocation that ends with them: one
/// element further is an error that the address sanitizer sees. What lies before is checked here.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t length, std::size_t offset = 0)
      : memory_(new T[offset + length]), length_(length), offset_(offset) {
    std::fill_n(memory_.get(), offset + length, guard);
  }

  T* data() { return memory_.get() + offset_; }
  const T* data() const { return memory_.get() + offset_; }
  std::size_t size() const { return length_; }
  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + length_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + length_; }

  /// Fails if anything was written before the first element.
  void check_guard() const {
    for (std::size_t i = 0; i < offset_; ++i) CHECK(memory_[i] == guard);
  }

 private:
  static constexpr T guard = T{113};

  std::unique_ptr<T[]> memory_;
  std::size_t length_;
  std::size_t offset_;
};

/// Numbers between -8 and 8, multiples of 1/16, the same for the same seed; every 13th a bound that
/// activations have (0, 6 or -1).
class Numbers {
 public:
  explicit Numbers(std::uint32_t seed) : state_(seed * 2654435761u + 1) {}

  template <typename T>
  T next() {
    state_ = state_ * 1664525u + 1013904223u;
    if (++drawn_ % 13 == 0) return T{drawn_ % 3 == 0 ? 6.0f : drawn_ % 3 == 1 ? 0.0f : -1.0f};
    return static_cast<T>(static_cast<int>(state_ >> 24) - 128) / T{16};
  }

  template <typename T>
  void fill(Array<T>& array) {
    for (T& element : array) element = next<T>();
  }

 private:
  std::uint32_t state_;
  unsigned drawn_ = 0;
};

/// Fails unless |given - expected| <= tolerance * max(1, |expected|), element by element; a NaN
/// equals a NaN. Tolerance 0: exactly, signs of zero apart.
template <typename Given, typename Expected>
void check_near(const Given& given, const Expected& expected, double tolerance) {
  CHECK_EQUAL(given.size(), expected.size());
  for (std::size_t i = 0; i < given.size(); ++i) {
    const auto a = static_cast<double>(given[i]);
    const auto b = static_cast<double>(expected[i]);
    const bool same = a == b || (std::isnan(a) && std::isnan(b)) ||
                      std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b));
    if (!same) {
      throw Failure("element " + std::to_string(i) + " of " + std::to_string(given.size()) +
                    " is " + std::to_string(a) + "; expected " + std::to_string(b));
    }
  }
}

}  // namespace igonnx::tests
