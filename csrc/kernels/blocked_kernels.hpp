// The kernels of blocked.hpp, compiled once per instruction set: each such file defines IGONNX_ISA.
//
// Vectors of the compiler (lanes.hpp) are split to the width of the instruction set before
// functions are cloned or inlined, so multiversion.hpp cannot serve here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/blocked.hpp"
#include "kernels/lanes.hpp"

namespace igonnx::kernels::IGONNX_ISA {

namespace {

// Columns i = first..end - 1 of a phase, all of whose taps lie inside the row.
template <int block, int columns>
inline void inner_columns(const Tap* taps, std::int64_t count, std::int64_t i, float* result,
                          const float* value, std::int64_t step, Mask mask) {
  Lanes<block> sums[columns] = {};
  for (std::int64_t t = 0; t < count; ++t) {
    const Lanes<block> weight = load<block>(taps[t].weight);
    const float* source = taps[t].row + (taps[t].offset + i) * block;
    for (int c = 0; c < columns; ++c) sums[c] += weight * load<block>(source + c * block);
  }
  for (int c = 0; c < columns; ++c) {
    const std::int64_t at = c * step * block;
    store<block>(result + at, mask.on
                                  ? masked(sums[c], load<block>(value + at), mask.lower, mask.upper)
                                  : sums[c]);
  }
}

template <int block>
inline void edge_column(const Tap* taps, std::int64_t count, std::int64_t i, std::int64_t outputs,
                        float* result, const float* value, Mask mask) {
  Lanes<block> sum{};
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t column = taps[t].offset + i;
    if (column < 0 || column >= outputs) continue;
    sum += load<block>(taps[t].weight) * load<block>(taps[t].row + column * block);
  }
  store<block>(result, mask.on ? masked(sum, load<block>(value), mask.lower, mask.upper) : sum);
}

template <int block>
inline void depthwise_gradient_row(const Sliding& down, const Sliding& across,
                                   const float* gradient, const float* weight, const float* value,
                                   float* result, std::int64_t h, Mask mask, Tap* taps) {
  for (std::int64_t w = 0; w < std::min(across.stride, across.inputs); ++w) {
    std::int64_t count = 0;
    std::int64_t low = 0;  // of the offsets, those that bound the inner columns
    std::int64_t high = std::numeric_limits<std::int64_t>::min();
    for (std::int64_t kh = 0; kh < down.kernel; ++kh) {
      const std::int64_t y = h + down.begin - kh * down.dilation;
      if (y < 0 || y % down.stride != 0 || y / down.stride >= down.outputs) continue;
      for (std::int64_t kw = 0; kw < across.kernel; ++kw) {
        const std::int64_t x = w + across.begin - kw * across.dilation;
        if (x % across.stride != 0) continue;
        const std::int64_t offset = x / across.stride;
        low = std::min(low, offset);
        high = std::max(high, offset);
        taps[count++] = {gradient + (y / down.stride) * across.outputs * block, offset,
                         weight + (kh * across.kernel + kw) * block};
      }
    }
    const std::int64_t columns = (across.inputs - w + across.stride - 1) / across.stride;
    std::int64_t i = 0;
    const auto at = [&](std::int64_t column) { return (w + column * across.stride) * block; };
    const std::int64_t first = std::min(columns, -low);
    // Without taps there is nothing to be outside of.
    const std::int64_t end =
        count == 0 ? columns : std::max(first, std::min(columns, across.outputs - high));
    const auto edges = [&](std::int64_t until) {
      for (; i < until; ++i) {
        edge_column<block>(taps, count, i, across.outputs, result + at(i), value + at(i), mask);
      }
    };
    edges(first);
    constexpr int wide = 4;
    for (; i + wide <= end; i += wide) {
      inner_columns<block, wide>(taps, count, i, result + at(i), value + at(i), across.stride,
                                 mask);
    }
    edges(columns);
  }
}

template <int block>
inline void depthwise_gradient(const Sliding& down, const Sliding& across, const float* gradient,
                               const float* weight, const float* value, float* result,
                               std::int64_t first_row, std::int64_t end_row, Mask mask, Tap* taps) {
  for (std::int64_t h = first_row; h < end_row; ++h) {
    const std::int64_t at = h * across.inputs * block;
    depthwise_gradient_row<block>(down, across, gradient, weight, value + at, result + at, h, mask,
                                  taps);
  }
}

template <int block>
inline void interleave_row(const PhaseRow* phases, std::int64_t stride, std::int64_t begin,
                           std::int64_t width, const float* value, float* result, Mask mask) {
  for (std::int64_t w = 0; w < width; ++w) {
    const PhaseRow& phase = phases[(w + begin) % stride];
    const std::int64_t i = (w + begin) / stride - phase.start;
    Lanes<block> lanes{};
    if (phase.data != nullptr && i >= 0 && i < phase.count) {
      lanes = load<block>(phase.data + i * block);
    }
    if (mask.on) lanes = masked(lanes, load<block>(value + w * block), mask.lower, mask.upper);
    store<block>(result + w * block, lanes);
  }
}

template <int block>
inline void max_pool_gradient(const Sliding& down, const Sliding& across, const float* gradient,
                              const float* value, const float* maximum, float* result, Mask mask) {
  const std::int64_t pixels = down.inputs * across.inputs;
  std::fill_n(result, pixels * block, 0.0f);
  for (std::int64_t y = 0; y < down.outputs; ++y) {
    for (std::int64_t x = 0; x < across.outputs; ++x) {
      const std::int64_t from = (y * across.outputs + x) * block;
      const Lanes<block> g = load<block>(gradient + from);
      const Lanes<block> m = load<block>(maximum + from);
      Lanes<block> taken{};
      for (std::int64_t kh = 0; kh < down.kernel; ++kh) {
        const std::int64_t h = y * down.stride + kh * down.dilation - down.begin;
        if (h < 0 || h >= down.inputs) continue;
        for (std::int64_t kw = 0; kw < across.kernel; ++kw) {
          const std::int64_t w = x * across.stride + kw * across.dilation - across.begin;
          if (w < 0 || w >= across.inputs) continue;
          const std::int64_t at = (h * across.inputs + w) * block;
          Lanes<block> sum = load<block>(result + at);
          sum += first_equal(g, load<block>(value + at), m, taken);
          store<block>(result + at, sum);
        }
      }
    }
  }
  if (!mask.on) return;
  for (std::int64_t at = 0; at < pixels * block; at += block) {
    store<block>(result + at,
                 masked(load<block>(result + at), load<block>(value + at), mask.lower, mask.upper));
  }
}

template <int block>
constexpr BlockedKernels table() {
  return {depthwise_gradient<block>, interleave_row<block>, max_pool_gradient<block>};
}

}  // namespace

extern const BlockedKernels blocked_tables[3];
const BlockedKernels blocked_tables[3] = {table<1>(), table<8>(), table<16>()};

}  // namespace igonnx::kernels::IGONNX_ISA
