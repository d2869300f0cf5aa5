// Kernels on images in ONNX Runtime's blocked layout (NCHWc): [N, C/b, H, W, b], b neighbouring
// channels of one pixel together. A block of 1 is the ordinary layout.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/multiversion.hpp"

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

/// One tap across: how many columns further its gradient for column 0 lies, and which it is.
struct ColumnTap {
  std::int64_t offset;
  std::int64_t index;
};

/// One tap of a kernel: a row of gradients, how many columns further the pixel for column 0 lies
/// (perhaps outside of the row), and the weights, one per channel of the block.
struct Tap {
  const float* row;
  std::int64_t offset;
  const float* weight;
};

/// The rows of a gradient that some rows of the input depend on, between zeros on both sides, so
/// that no tap ever reaches beyond a row.
struct PaddedRows {
  IGONNX_INLINE PaddedRows(const Sliding& down, const Sliding& across, std::int64_t first_row,
                           std::int64_t end_row)
      : first(std::max<std::int64_t>(
            0, above((first_row + down.begin) - (down.kernel - 1) * down.dilation, down.stride))),
        end(std::min(down.outputs, (end_row - 1 + down.begin) / down.stride + 1)),
        left(std::max<std::int64_t>(
            0, above((across.kernel - 1) * across.dilation - across.begin, across.stride))),
        width(left +
              std::max(across.outputs, (across.inputs - 1 + across.begin) / across.stride + 1)) {}

  /// Pixels in all rows.
  IGONNX_INLINE std::int64_t size() const { return std::max<std::int64_t>(0, end - first) * width; }

  std::int64_t first;  // rows of the gradient
  std::int64_t end;
  std::int64_t left;   // zeros in front of each
  std::int64_t width;  // with the zeros

 private:
  static IGONNX_INLINE std::int64_t above(std::int64_t number, std::int64_t by) {
    return number <= 0 ? number / by : (number + by - 1) / by;
  }
};

/// One tap of a stem: where the gradient that it takes to column 0 lies among the padded rows of a
/// channel, and its weight among those of a filter.
struct StemTap {
  std::int64_t source;
  std::int64_t weight;
};

/// The input gradient of a convolution with few input channels, for some rows of one example, in
/// the ordinary layout.
struct StemTask {
  Sliding down, across;
  std::int64_t channels;  // of the input, at most 4
  std::int64_t filters;
  const float* gradient;  // [filters, outputs, outputs]
  const float* weight;    // [filters, channels, kernel, kernel]
  float* result;          // [channels, inputs, inputs]
  std::int64_t first_row;
  std::int64_t end_row;
  StemTap* taps;           // room for as many as the kernel has
  ColumnTap* column_taps;  // likewise, across
  float* rows;             // room for stem_room()
};

/// Numbers that StemTask::rows must have room for.
IGONNX_INLINE std::int64_t stem_room(const StemTask& task) {
  const PaddedRows rows(task.down, task.across, task.first_row, task.end_row);
  constexpr std::int64_t beyond = 32;  // the kernel reads whole vectors
  return rows.size() * task.filters + beyond;
}

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
  /// convolution's input, read only if the mask is on) and `result` [inputs, inputs, b]. `taps` and
  /// `across_taps` are room for as many taps as the kernel has, in all and across.
  void (*depthwise_gradient)(const Sliding& down, const Sliding& across, const float* gradient,
                             const float* weight, const float* value, float* result,
                             std::int64_t first_row, std::int64_t end_row, Mask mask, Tap* taps,
                             ColumnTap* across_taps);

  /// Rows first_row..end_row - 1 of the result, 2 b columns at a time.
  void (*stem_gradient)(const StemTask& task);

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
