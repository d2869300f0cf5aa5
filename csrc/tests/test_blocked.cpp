// kernels/blocked.hpp, in every version that this processor can run, against the definitions of the
// forward operators. Values are multiples of 1/16 and few are added: sums are exact.
#include <array>
#include <string>
#include <vector>

#include "check.hpp"
#include "kernel_arrays.hpp"
#include "kernels/blocked.hpp"

using namespace igonnx;
using namespace igonnx::tests;
using kernels::BlockedKernels;
using kernels::Mask;
using kernels::Sliding;

namespace {

constexpr std::array<std::int64_t, 3> blocks{1, 8, 16};

/// The tables for blocks of 1, 8 and 16 channels, per instruction set.
std::vector<const BlockedKernels*> tables() {
  std::vector<const BlockedKernels*> found{kernels::baseline::blocked_tables};
#if defined(IGONNX_X86_KERNELS)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.push_back(kernels::avx2::blocked_tables);
  }
  if (__builtin_cpu_supports("avx512f")) found.push_back(kernels::avx512::blocked_tables);
#endif
  return found;
}

template <typename Body>
void for_all_tables(const Body& body) {
  for (const BlockedKernels* table : tables()) {
    for (std::size_t i = 0; i < blocks.size(); ++i) body(table[i], blocks[i]);
  }
}

/// Windows of all kinds over an axis of `inputs`: kernels, strides, dilations, paddings; some with
/// windows that see nothing but padding.
std::vector<Sliding> slidings(std::int64_t inputs) {
  std::vector<Sliding> found;
  for (std::int64_t kernel : {1, 2, 3, 5}) {
    for (std::int64_t stride : {1, 2, 3}) {
      for (std::int64_t dilation : {1, 2}) {
        for (std::int64_t begin : {0, 1, 2}) {
          const std::int64_t room = inputs + 2 * begin - dilation * (kernel - 1) - 1;
          if (room < 0) continue;
          found.push_back({kernel, stride, dilation, begin, inputs, room / stride + 1});
        }
      }
    }
  }
  return found;
}

constexpr std::array<Mask, 2> masks{Mask{}, Mask{true, 0.0f, 6.0f}};

std::size_t elements(std::int64_t rows, std::int64_t columns, std::int64_t block) {
  return static_cast<std::size_t>(rows * columns * block);
}

Array<float> numbers(std::size_t size, std::uint32_t seed, std::size_t offset) {
  Array<float> array(size, offset);
  Numbers(seed).fill(array);
  return array;
}

/// Calls `visit(output, tap, input)`, flat indices of pixels, for each tap that lies inside.
template <typename Visit>
void for_each_tap(const Sliding& down, const Sliding& across, const Visit& visit) {
  for (std::int64_t y = 0; y < down.outputs; ++y) {
    for (std::int64_t x = 0; x < across.outputs; ++x) {
      for (std::int64_t k = 0; k < down.kernel; ++k) {
        for (std::int64_t l = 0; l < across.kernel; ++l) {
          const std::int64_t h = y * down.stride + k * down.dilation - down.begin;
          const std::int64_t w = x * across.stride + l * across.dilation - across.begin;
          if (h < 0 || h >= down.inputs || w < 0 || w >= across.inputs) continue;
          visit(y * across.outputs + x, k * across.kernel + l, h * across.inputs + w);
        }
      }
    }
  }
}

void apply(Mask mask, const Array<float>& value, std::vector<float>& result) {
  for (std::size_t i = 0; mask.on && i < result.size(); ++i) {
    if (!(mask.lower < value[i] && value[i] < mask.upper)) result[i] = 0;
  }
}

void check_depthwise(const BlockedKernels& table, std::int64_t block, const Sliding& down,
                     const Sliding& across, Mask mask) {
  const auto gradient = numbers(elements(down.outputs, across.outputs, block), 1, 1);
  const auto weight = numbers(elements(down.kernel, across.kernel, block), 2, 3);
  const auto value = numbers(elements(down.inputs, across.inputs, block), 3, 7);
  std::vector<float> want(value.size());
  for_each_tap(down, across, [&](std::int64_t output, std::int64_t tap, std::int64_t input) {
    for (std::int64_t c = 0; c < block; ++c) {
      want[static_cast<std::size_t>(input * block + c)] +=
          gradient.data()[output * block + c] * weight.data()[tap * block + c];
    }
  });
  apply(mask, value, want);
  Array<float> result(value.size(), 5);
  std::vector<kernels::Tap> taps(static_cast<std::size_t>(down.kernel * across.kernel));
  std::vector<kernels::ColumnTap> across_taps(static_cast<std::size_t>(across.kernel));
  const std::int64_t half = down.inputs / 2;  // rows may come in any number of parts
  for (const auto& [first, end] : {std::pair{std::int64_t{0}, half}, {half, down.inputs}}) {
    table.depthwise_gradient(down, across, gradient.data(), weight.data(), value.data(),
                             result.data(), first, end, mask, taps.data(), across_taps.data());
  }
  check_near(result, want, 0);
  result.check_guard();
}

void check_stem(const BlockedKernels& table, std::int64_t, const Sliding& down,
                const Sliding& across, Mask mask) {
  if (mask.on) return;
  constexpr std::int64_t filters = 5;
  for (std::int64_t channels : {1, 2, 3, 4}) {
    const std::int64_t taps_per_filter = down.kernel * across.kernel;
    const std::int64_t outside = down.outputs * across.outputs;
    const std::int64_t inside = down.inputs * across.inputs;
    const auto gradient = numbers(elements(filters, outside, 1), 1, 1);
    const auto weight = numbers(elements(filters * channels, taps_per_filter, 1), 2, 3);
    std::vector<float> want(elements(channels, inside, 1));
    for_each_tap(down, across, [&](std::int64_t output, std::int64_t tap, std::int64_t input) {
      for (std::int64_t f = 0; f < filters; ++f) {
        for (std::int64_t c = 0; c < channels; ++c) {
          want[static_cast<std::size_t>(c * inside + input)] +=
              gradient.data()[f * outside + output] *
              weight.data()[(f * channels + c) * taps_per_filter + tap];
        }
      }
    });
    Array<float> result(want.size(), 5);
    std::vector<kernels::StemTap> taps(static_cast<std::size_t>(taps_per_filter));
    std::vector<kernels::ColumnTap> column_taps(static_cast<std::size_t>(across.kernel));
    const std::int64_t half = down.inputs / 2;
    for (const auto& [first, end] : {std::pair{std::int64_t{0}, half}, {half, down.inputs}}) {
      if (first == end) continue;
      kernels::StemTask task{
          down,          across, channels, filters,     gradient.data(),    weight.data(),
          result.data(), first,  end,      taps.data(), column_taps.data(), nullptr};
      std::vector<float> rows(static_cast<std::size_t>(kernels::stem_room(task)));
      task.rows = rows.data();
      table.stem_gradient(task);
    }
    check_near(result, want, 1e-5);
    result.check_guard();
  }
}

void check_max_pool(const BlockedKernels& table, std::int64_t block, const Sliding& down,
                    const Sliding& across, Mask mask) {
  const auto gradient = numbers(elements(down.outputs, across.outputs, block), 1, 1);
  const auto value = numbers(elements(down.inputs, across.inputs, block), 3, 7);
  Array<float> maximum(gradient.size(), 3);
  std::fill(maximum.begin(), maximum.end(), -std::numeric_limits<float>::infinity());
  std::vector<std::int64_t> winner(gradient.size(), -1);
  for_each_tap(down, across, [&](std::int64_t output, std::int64_t, std::int64_t input) {
    for (std::int64_t c = 0; c < block; ++c) {
      const auto at = static_cast<std::size_t>(output * block + c);
      const float candidate = value.data()[input * block + c];
      if (winner[at] >= 0 && candidate <= maximum[at]) continue;
      maximum[at] = candidate;
      winner[at] = input * block + c;
    }
  });
  std::vector<float> want(value.size());
  for (std::size_t i = 0; i < winner.size(); ++i) {
    if (winner[i] >= 0) want[static_cast<std::size_t>(winner[i])] += gradient[i];
  }
  apply(mask, value, want);
  Array<float> result(value.size(), 5);
  table.max_pool_gradient(down, across, gradient.data(), value.data(), maximum.data(),
                          result.data(), mask);
  check_near(result, want, 0);
  result.check_guard();
}

/// Runs `check` on all windows along each axis, the other axis having a plain one.
template <typename Check>
void check_windows(const Check& check) {
  for_all_tables([&](const BlockedKernels& table, std::int64_t block) {
    for (Mask mask : masks) {
      for (std::int64_t inputs : {1, 2, 5, 14, 31}) {
        for (const Sliding& sliding : slidings(inputs)) {
          check(table, block, sliding, {3, 1, 1, 1, 4, 4}, mask);
          check(table, block, {3, 2, 1, 1, 5, 3}, sliding, mask);
        }
      }
    }
  });
}

void check_interleave(const BlockedKernels& table, std::int64_t block, std::int64_t stride,
                      std::int64_t begin, std::int64_t width, Mask mask) {
  const auto value = numbers(elements(1, width, block), 3, 1);
  std::vector<Array<float>> data;
  std::vector<kernels::PhaseRow> phases;
  for (std::int64_t phase = 0; phase < stride; ++phase) {  // some too short, some late, one absent
    const std::int64_t count = std::max<std::int64_t>(0, (width + begin) / stride - phase % 2);
    data.push_back(numbers(elements(1, count, block), static_cast<std::uint32_t>(phase), 3));
    phases.push_back({phase == 2 ? nullptr : data.back().data(), phase % 2, count});
  }
  std::vector<float> want(value.size());
  for (std::int64_t w = 0; w < width; ++w) {
    const kernels::PhaseRow& phase = phases[static_cast<std::size_t>((w + begin) % stride)];
    const std::int64_t pixel = (w + begin) / stride - phase.start;
    if (phase.data == nullptr || pixel < 0 || pixel >= phase.count) continue;
    for (std::int64_t c = 0; c < block; ++c) {
      want[static_cast<std::size_t>(w * block + c)] = phase.data[pixel * block + c];
    }
  }
  apply(mask, value, want);
  Array<float> result(value.size(), 7);
  table.interleave_row(phases.data(), stride, begin, width, value.data(), result.data(), mask);
  check_near(result, want, 0);
  result.check_guard();
}

}  // namespace

TEST(blocked_depthwise_gradient) { check_windows(check_depthwise); }

TEST(blocked_stem_gradient) { check_windows(check_stem); }

TEST(blocked_max_pool_gradient) { check_windows(check_max_pool); }

TEST(blocked_interleave_row) {
  for_all_tables([](const BlockedKernels& table, std::int64_t block) {
    for (Mask mask : masks) {
      for (std::int64_t stride : {1, 2, 3}) {
        for (std::int64_t begin : {0, 1, 2, 3}) {
          for (std::int64_t width = 0; width <= 70; ++width) {
            check_interleave(table, block, stride, begin, width, mask);
          }
        }
      }
    }
  });
}

TEST(blocked_kernels_are_those_of_their_block) {
  for (std::int64_t block : blocks) {
    const BlockedKernels& chosen = kernels::blocked_kernels(block);
    check_interleave(chosen, block, 2, 1, 9, masks[1]);
  }
}
