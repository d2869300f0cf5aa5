// Features of an input that are kept, or taken from a baseline.
#pragma once

#include <cstddef>
#include <cstdint>

namespace igonnx::kernels {

/// z = baseline + keep[feature] (x - baseline), for `count` elements: x itself where keep is 1, and
/// the baseline itself where it is 0, whatever the other one is. `feature` are numbers of the
/// `features` entries of `keep`; elements with any other number are kept.
template <typename T>
void mask(const T* x, const T* baseline, const std::int32_t* feature, const T* keep,
          std::size_t features, T* z, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    // A negative number becomes a large one.
    const auto which = static_cast<std::size_t>(static_cast<std::int64_t>(feature[i]));
    const T share = which < features ? keep[which] : T{1};
    const T mixed = baseline[i] + share * (x[i] - baseline[i]);
    z[i] = share == T{1} ? x[i] : share == T{0} ? baseline[i] : mixed;
  }
}

}  // namespace igonnx::kernels
