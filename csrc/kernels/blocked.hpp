// Kernels on images in ONNX Runtime's blocked layout (NCHWc): [N, C/b, H, W, b], b neighbouring
// channels of one pixel together. A block of 1 is the ordinary layout.
#pragma once

#include <cstddef>
#include <cstdint>

namespace igonnx::kernels {

/// How a window slides along one axis: output o sees the inputs o * stride + k * dilation - begin.
struct Sliding {
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t begin = 0;   // padding in front
  std::int64_t inputs = 0;  // sizes of the axis
  std::int64_t outputs = 0;
};

/// The open interval outside of which a gradient is set to zero: what an activation lets through.
/// Off, everything passes.
struct Mask {
  bool on = false;
  float lower = 0;
  float upper = 0;
};

/// One tap of a kernel: a row of gradients, how many columns further the pixel for column 0 lies
/// (perhaps outside of the row), and the weights, one per channel of the block.
struct Tap {
  const float* row;
  std::int64_t offset;
  const float* weight;
};

/// One phase as it lies in one row: pixel i of the phase is `data[(i - start) * b]` for the `count`
/// pixels from `start` on, and zero elsewhere. `data` is null if all of it is zero.
struct PhaseRow {
  const float* data = nullptr;
  std::int64_t start = 0;
  std::int64_t count = 0;
};

/// The kernels for one size of block, compiled for one instruction set.
struct BlockedKernels {
  /// Rows first_row..end_row - 1 of a depthwise convolution's input gradient, for one block of
  /// channels: `gradient` [outputs, outputs, b], `weight` [kernel, kernel, b], `value` (the
  /// convolution's input, read only if the mask is on) and `result` [inputs, inputs, b]. `taps` is
  /// room for as many taps as the kernel has, and once more its width.
  void (*depthwise_gradient)(const Sliding& down, const Sliding& across, const float* gradient,
                             const float* weight, const float* value, float* result,
                             std::int64_t first_row, std::int64_t end_row, Mask mask, Tap* taps);

  /// One row of `width` pixels: pixel w is pixel (w + begin) / stride of phase (w + begin) %
  /// stride. `value` is read only if the mask is on.
  void (*interleave_row)(const PhaseRow* phases, std::int64_t stride, std::int64_t begin,
                         std::int64_t width, const float* value, float* result, Mask mask);

  /// The input gradient of max pooling, for one block of channels: `gradient` and `maximum` (the
  /// pooling's output) [outputs, outputs, b], `value` (its input) and `result` [inputs, inputs, b].
  /// Each window's gradient goes to the first of its elements that equals the maximum.
  void (*max_pool_gradient)(const Sliding& down, const Sliding& across, const float* gradient,
                            const float* value, const float* maximum, float* result, Mask mask);
};

/// The kernels for blocks of 1, 8 or 16 channels, for the widest vectors that the processor has.
const BlockedKernels& blocked_kernels(std::int64_t block);

// One table per instruction set and size of block, in this order of blocks: 1, 8, 16.
namespace baseline {
extern const BlockedKernels blocked_tables[3];
}
#if defined(IGONNX_X86_KERNELS)
namespace avx2 {
extern const BlockedKernels blocked_tables[3];
}
namespace avx512 {
extern const BlockedKernels blocked_tables[3];
}
#endif

}  // namespace igonnx::kernels
