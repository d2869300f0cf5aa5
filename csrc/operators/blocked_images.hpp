// What operators on images in the ordinary or the blocked layout have in common.
//
// A tensor is declared [N, C, H, W] in either layout. The attribute `block` says how its memory is
// arranged: 1 as declared, b > 1 as [N, C/b, H, W, b], with C padded to a multiple of b.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/blocked.hpp"
#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

using Shape = std::vector<std::int64_t>;

/// Blocks of channels in a tensor, over all examples.
inline std::size_t planes_of(const Shape& shape, std::int64_t block) {
  return static_cast<std::size_t>(shape[0] * shape[1] / block);
}

inline void require_image(const Shape& shape, std::int64_t block, const char* name) {
  require(shape.size() == 4 && shape[1] % block == 0,
          std::string(name) + ": expected images [N, C, H, W] with C a multiple of " +
              std::to_string(block));
}

/// Whether two images, of which `image` has passed require_image, have the same examples and
/// channels.
inline void require_alike(const Shape& other, const Shape& image, const char* name) {
  require(other.size() == 4 && other[0] == image[0] && other[1] == image[1],
          std::string(name) + ": images differ in examples or channels");
}

inline std::int64_t block_of(const Attributes& attributes, const char* name) {
  const std::int64_t block = attributes.integer("block", 1);
  require(block == 1 || block == 8 || block == 16,
          std::string(name) + ": block is " + std::to_string(block) + "; expected 1, 8 or 16");
  return block;
}

/// The mask of the attributes `lower` and `upper`, on if there is either.
inline kernels::Mask mask_of(const Attributes& attributes) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float lower = attributes.number("lower", -infinity);
  const float upper = attributes.number("upper", infinity);
  return {lower > -infinity || upper < infinity, lower, upper};
}

/// Along the height and along the width: the attributes `kernel_shape`, `strides`, `dilations` (2
/// each) and `begins`, the padding in front.
inline std::array<kernels::Sliding, 2> sliding_of(const Attributes& attributes, const char* name) {
  std::array<kernels::Sliding, 2> sliding;
  const auto read = [&](const char* attribute, std::int64_t kernels::Sliding::* field,
                        std::int64_t least) {
    const Shape values = attributes.integers(attribute);
    require(values.size() == 2 && values[0] >= least && values[1] >= least,
            std::string(name) + ": " + attribute + " must be 2 numbers of at least " +
                std::to_string(least));
    for (std::size_t axis : {std::size_t{0}, std::size_t{1}}) sliding[axis].*field = values[axis];
  };
  read("kernel_shape", &kernels::Sliding::kernel, 1);
  read("strides", &kernels::Sliding::stride, 1);
  read("dilations", &kernels::Sliding::dilation, 1);
  read("begins", &kernels::Sliding::begin, 0);
  return sliding;
}

/// `sliding` with the sizes of a window's input and output.
inline std::array<kernels::Sliding, 2> sized(std::array<kernels::Sliding, 2> sliding,
                                             const Shape& input, const Shape& output) {
  for (std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
    sliding[axis].inputs = input[2 + axis];
    sliding[axis].outputs = output[2 + axis];
  }
  return sliding;
}

}  // namespace igonnx::plugin
