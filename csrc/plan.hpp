// What the engine is asked to run, as views of arrays that the caller keeps alive.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ort_abi.h"

namespace igonnx {

/// A C-contiguous array.
struct ArrayView {
  const void* data = nullptr;
  abi::ElementType type = abi::ElementType::undefined;
  std::vector<std::int64_t> shape;

  /// Number of elements in one slice along the first axis (all of a scalar).
  std::int64_t slice_size() const;
  std::int64_t slice_bytes() const;
  std::int64_t bytes() const;

  /// The slices first..end - 1.
  ArrayView part(std::int64_t first, std::int64_t end) const;
};

/// A tensor to explain: where the path ends and where it begins, both [R, ...].
struct ExplainedInput {
  std::string name;
  ArrayView x;
  ArrayView baseline;
};

/// An input that is held fixed: [R, ...] if batched, else as the model takes it.
struct FixedInput {
  std::string name;
  ArrayView array;
  bool batched = false;
};

/// An input with a slice for each row, [B, ...].
struct RowInput {
  std::string name;
  ArrayView array;
};

/// R requests and B rows. Row b asks for the gradient of request row[b] at alpha[b], to be summed
/// with weight[b]; or, without gradients, for the score alone at what the graph makes of request
/// row[b] and of the inputs by row. x, baseline, cotangent, alpha and weight have one dtype,
/// float32 or float64.
struct Plan {
  std::vector<ExplainedInput> explained;
  std::vector<FixedInput> fixed;
  std::vector<RowInput> by_row;
  ArrayView cotangent;          // [R, ...]
  ArrayView row;                // int64 [B], non-decreasing
  bool gradients = true;        // false: alpha and weight are not there, slopes neither
  ArrayView alpha;              // [B]
  ArrayView weight;             // [B]
  std::int64_t batch_size = 1;  // rows per chunk
  bool pad = false;             // every chunk must have exactly batch_size rows
  std::int64_t first_row = 0;   // of the call that this is a part of, for messages

  std::int64_t requests() const { return explained.front().x.shape.front(); }
  std::int64_t rows() const { return row.shape.front(); }
  abi::ElementType type() const { return explained.front().x.type; }
  const std::int64_t* row_data() const { return static_cast<const std::int64_t*>(row.data); }
};

/// Where the results go: memory of the caller, the gradients set to zero. A plan without gradients
/// has the scores alone.
struct Results {
  std::vector<double*> weighted_gradient;  // per explained input: as many elements as its x
  double* score = nullptr;                 // [B]
  double* slope = nullptr;                 // [B]
};

/// Throws InputError unless the parts of the plan fit together; until it has returned, the
/// accessors of Plan must not be used.
void check(const Plan& plan);

/// Whether rows of both plans may run in one chunk: the same inputs, alike but for the number of
/// requests, and the same contents in those that belong to no request. Both have passed check().
bool can_share_chunk(const Plan& a, const Plan& b);

/// "float32"; "dtype 8" for one that igonnx has no use for.
std::string name_of(abi::ElementType type);

/// Bytes per element; 0 for a type that igonnx has no use for.
std::int64_t size_of(abi::ElementType type);

}  // namespace igonnx
