// Tensors as rows along their last axis.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "operators/custom_operator.hpp"

namespace igonnx::plugin {

/// `count` rows of `columns` elements each: the last axis of a tensor, and all others together. A
/// scalar is one row of one element.
struct Rows {
  explicit Rows(const std::vector<std::int64_t>& shape)
      : columns(shape.empty() ? 1 : static_cast<std::size_t>(shape.back())) {
    for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) {
      count *= static_cast<std::size_t>(shape[axis]);
    }
  }

  Rows(std::size_t row_count, std::size_t column_count) : count(row_count), columns(column_count) {}

  std::size_t count = 1;
  std::size_t columns;
};

/// Runs `task(first row, number of rows)` for all rows, about `elements` elements at a time.
template <typename Task>
void for_rows(const Call& call, const Rows& rows, std::size_t elements, const Task& task) {
  const std::size_t block =
      std::max<std::size_t>(1, elements / std::max<std::size_t>(1, rows.columns));
  call.parallel_blocks(rows.count, block, task);
}

}  // namespace igonnx::plugin
