// Small vectors of floats, of as many lanes as a block of the blocked layout has channels.
//
// For files that are compiled once per instruction set: IGONNX_ISA names the set, and a namespace
// of that name keeps the versions of an inline function apart.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>

#if !defined(IGONNX_ISA)
#error "lanes.hpp is for files that define IGONNX_ISA"
#endif

namespace igonnx::kernels::IGONNX_ISA {

#if defined(__GNUC__)

template <int n>
struct LanesOf {
  typedef float floats __attribute__((vector_size(n * sizeof(float))));
};

template <>
struct LanesOf<1> {
  using floats = float;
};

template <int n>
using Lanes = typename LanesOf<n>::floats;

/// gradient where lower < value < upper, else 0, lane by lane.
template <typename V>
inline V masked(V gradient, V value, float lower, float upper) {
  return ((value > lower) & (value < upper)) ? gradient : V{};
}

/// gradient where a equals b and `taken` is not set, else 0; sets `taken` there.
template <typename V>
inline V first_equal(V gradient, V a, V b, V& taken) {
  const V zero{};
  const V one = zero + 1.0f;
  const V result = ((a == b) & (taken == zero)) ? gradient : zero;
  taken = (a == b) ? one : taken;
  return result;
}

#else

// Without vector extensions: an array, whose loops the compiler may vectorise.
template <int n>
struct Lanes {
  std::array<float, n> at{};
  Lanes& operator+=(const Lanes& other) {
    for (int i = 0; i < n; ++i) at[i] += other.at[i];
    return *this;
  }
  friend Lanes operator*(Lanes a, const Lanes& b) {
    for (int i = 0; i < n; ++i) a.at[i] *= b.at[i];
    return a;
  }
};

template <int n>
inline Lanes<n> masked(Lanes<n> gradient, const Lanes<n>& value, float lower, float upper) {
  for (int i = 0; i < n; ++i) {
    if (!(value.at[i] > lower && value.at[i] < upper)) gradient.at[i] = 0;
  }
  return gradient;
}

template <int n>
inline Lanes<n> first_equal(Lanes<n> gradient, const Lanes<n>& a, const Lanes<n>& b,
                            Lanes<n>& taken) {
  for (int i = 0; i < n; ++i) {
    const bool equal = a.at[i] == b.at[i];
    if (!equal || taken.at[i] != 0) gradient.at[i] = 0;
    if (equal) taken.at[i] = 1;
  }
  return gradient;
}

#endif

template <int n>
inline Lanes<n> load(const float* from) {
  Lanes<n> lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

template <int n>
inline void store(float* to, const Lanes<n>& lanes) {
  std::memcpy(to, &lanes, sizeof lanes);
}

}  // namespace igonnx::kernels::IGONNX_ISA
