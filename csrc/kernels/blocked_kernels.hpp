// The kernels of blocked.hpp, compiled once per instruction set: each such file defines IGONNX_ISA.
//
// Vectors of the compiler (lanes.hpp) are split to the width of the instruction set before
// functions are cloned or inlined, so multiversion.hpp cannot serve here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

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

// The taps across that reach columns w, w + stride, ...; returns how many. Divisions are slow, so
// this is not done for each row anew.
inline std::int64_t column_taps(const Sliding& across, std::int64_t w, ColumnTap* taps) {
  std::int64_t count = 0;
  for (std::int64_t k = 0; k < across.kernel; ++k) {
    const std::int64_t x = w + across.begin - k * across.dilation;
    if (x % across.stride == 0) taps[count++] = {x / across.stride, k};
  }
  return count;
}

// Calls `visit(row, k)` for each tap k along the height that takes a row of the gradient to row h.
template <typename Visit>
inline void for_each_row(const Sliding& down, std::int64_t h, const Visit& visit) {
  for (std::int64_t k = 0; k < down.kernel; ++k) {
    std::int64_t y = h + down.begin - k * down.dilation;
    if (y < 0) break;
    if (down.stride > 1) {
      if (y % down.stride != 0) continue;
      y /= down.stride;
    }
    if (y < down.outputs) visit(y, k);
  }
}

// Columns w, w + stride, ... of the input: the phase of w. All of them see the same taps across.
struct ColumnPhase {
  std::int64_t columns;
  std::int64_t first;  // the columns first..end - 1 have all their taps inside the row
  std::int64_t end;
  std::int64_t count;  // taps across
};

// The phase of column `w`; its taps go to `taps`.
inline ColumnPhase column_phase(const Sliding& across, std::int64_t w, ColumnTap* taps) {
  const std::int64_t columns = (across.inputs - w + across.stride - 1) / across.stride;
  const std::int64_t count = column_taps(across, w, taps);
  std::int64_t low = 0;
  std::int64_t high = 0;
  for (std::int64_t t = 0; t < count; ++t) {
    low = std::min(low, taps[t].offset);
    high = std::max(high, taps[t].offset);
  }
  const std::int64_t first = std::min(columns, -low);
  const std::int64_t end = std::max(first, std::min(columns, across.outputs - high));
  return {columns, first, end, count};
}

template <int block>
inline void depthwise_gradient(const Sliding& down, const Sliding& across, const float* gradient,
                               const float* weight, const float* value, float* result,
                               std::int64_t first_row, std::int64_t end_row, Mask mask, Tap* taps,
                               ColumnTap* across_taps) {
  const std::int64_t step = across.stride;
  for (std::int64_t w = 0; w < std::min(step, across.inputs); ++w) {
    const ColumnPhase phase = column_phase(across, w, across_taps);
    for (std::int64_t h = first_row; h < end_row; ++h) {
      std::int64_t count = 0;
      for_each_row(down, h, [&](std::int64_t y, std::int64_t k) {
        for (std::int64_t t = 0; t < phase.count; ++t) {
          const ColumnTap tap = across_taps[t];
          taps[count++] = {gradient + y * across.outputs * block, tap.offset,
                           weight + (k * across.kernel + tap.index) * block};
        }
      });
      const std::int64_t row = h * across.inputs + w;
      const auto at = [&](std::int64_t i) { return (row + i * step) * block; };
      std::int64_t i = 0;
      for (; i < phase.first; ++i) {
        edge_column<block>(taps, count, i, across.outputs, result + at(i), value + at(i), mask);
      }
      for (; i + 6 <= phase.end; i += 6) {
        inner_columns<block, 6>(taps, count, i, result + at(i), value + at(i), step, mask);
      }
      for (; i + 3 <= phase.end; i += 3) {
        inner_columns<block, 3>(taps, count, i, result + at(i), value + at(i), step, mask);
      }
      for (; i < phase.end; ++i) {
        inner_columns<block, 1>(taps, count, i, result + at(i), value + at(i), step, mask);
      }
      for (; i < phase.columns; ++i) {
        edge_column<block>(taps, count, i, across.outputs, result + at(i), value + at(i), mask);
      }
    }
  }
}

// Two vectors of neighbouring columns of a phase, from column i on, in all channels.
template <int lanes, int channels>
inline void sum_stem_taps(const StemTask& task, const float* rows, std::int64_t room,
                          std::int64_t count, std::int64_t columns, float* result) {
  const std::int64_t taps_per_filter = task.down.kernel * task.across.kernel;
  Lanes<lanes> sums[channels][2] = {};
  for (std::int64_t f = 0; f < task.filters; ++f) {
    const float* const weight = task.weight + f * channels * taps_per_filter;
    const float* const source = rows + f * room;
    for (std::int64_t t = 0; t < count; ++t) {
      const Lanes<lanes> left = load<lanes>(source + task.taps[t].source);
      const Lanes<lanes> right = load<lanes>(source + task.taps[t].source + lanes);
      for (int c = 0; c < channels; ++c) {
        const float factor = weight[c * taps_per_filter + task.taps[t].weight];
        sums[c][0] += factor * left;
        sums[c][1] += factor * right;
      }
    }
  }
  const std::int64_t step = task.across.stride;
  const std::int64_t plane = task.down.inputs * task.across.inputs;
  for (int c = 0; c < channels; ++c) {
    float found[2 * lanes];
    store<lanes>(found, sums[c][0]);
    store<lanes>(found + lanes, sums[c][1]);
    for (std::int64_t i = 0; i < columns; ++i) result[c * plane + i * step] = found[i];
  }
}

template <int lanes, int channels>
inline void stem_gradient_of(const StemTask& task) {
  const PaddedRows rows(task.down, task.across, task.first_row, task.end_row);
  const std::int64_t room = rows.size();
  const std::int64_t outputs = task.across.outputs;
  float* to = task.rows;
  for (std::int64_t f = 0; f < task.filters; ++f) {
    for (std::int64_t y = rows.first; y < rows.end; ++y) {
      to = std::fill_n(to, rows.left, 0.0f);
      to = std::copy_n(task.gradient + (f * task.down.outputs + y) * outputs, outputs, to);
      to = std::fill_n(to, rows.width - rows.left - outputs, 0.0f);
    }
  }
  std::fill(to, task.rows + stem_room(task), 0.0f);
  const std::int64_t step = task.across.stride;
  const std::int64_t width = task.across.inputs;
  for (std::int64_t w = 0; w < std::min(step, width); ++w) {
    const std::int64_t columns = (width - w + step - 1) / step;
    const std::int64_t across = column_taps(task.across, w, task.column_taps);
    for (std::int64_t h = task.first_row; h < task.end_row; ++h) {
      std::int64_t count = 0;
      for_each_row(task.down, h, [&](std::int64_t y, std::int64_t k) {
        for (std::int64_t t = 0; t < across; ++t) {
          const ColumnTap tap = task.column_taps[t];
          task.taps[count++] = {(y - rows.first) * rows.width + rows.left + tap.offset,
                                k * task.across.kernel + tap.index};
        }
      });
      for (std::int64_t i = 0; i < columns; i += 2 * lanes) {
        sum_stem_taps<lanes, channels>(task, task.rows + i, room, count,
                                       std::min<std::int64_t>(2 * lanes, columns - i),
                                       task.result + h * width + w + i * step);
      }
    }
  }
}

template <int lanes>
inline void stem_gradient(const StemTask& task) {
  switch (task.channels) {
    case 1:
      return stem_gradient_of<lanes, 1>(task);
    case 2:
      return stem_gradient_of<lanes, 2>(task);
    case 3:
      return stem_gradient_of<lanes, 3>(task);
    default:
      return stem_gradient_of<lanes, 4>(task);
  }
}

template <int block>
inline void interleave_row(const PhaseRow* phases, std::int64_t stride, std::int64_t begin,
                           std::int64_t width, const float* value, float* result, Mask mask) {
  std::int64_t remainder = begin % stride;
  std::int64_t pixel = begin / stride;
  for (std::int64_t w = 0; w < width; ++w) {
    const PhaseRow& phase = phases[remainder];
    const std::int64_t i = pixel - phase.start;
    if (++remainder == stride) {
      remainder = 0;
      ++pixel;
    }
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
  return {depthwise_gradient<block>, stem_gradient<block>, interleave_row<block>,
          max_pool_gradient<block>};
}

}  // namespace

extern const BlockedKernels blocked_tables[3];
const BlockedKernels blocked_tables[3] = {table<1>(), table<8>(), table<16>()};

}  // namespace igonnx::kernels::IGONNX_ISA
