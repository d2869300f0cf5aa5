// Rows of several plans in one chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "plan.hpp"

namespace igonnx {

/// Rows first..end - 1 of a plan.
struct Segment {
  const Plan* plan;
  std::int64_t first;
  std::int64_t end;
};

/// A plan made of segments of other plans: the rows, and a copy of the requests they touch, one
/// behind the other. Once made, it does not need the plans it was made of.
class MergedChunk {
 public:
  /// Any two of the plans must be such that can_share_chunk() holds.
  explicit MergedChunk(const std::vector<Segment>& segments);

  const Plan& plan() const { return plan_; }
  Results& results() { return results_; }

  /// Hands what was computed for one segment to its plan's results: scores and slopes are stored,
  /// gradients are added.
  void scatter(std::size_t segment, const Results& target) const;

  MergedChunk(const MergedChunk&) = delete;
  MergedChunk& operator=(const MergedChunk&) = delete;

 private:
  // Where a request of this chunk comes from.
  struct Source {
    std::size_t segment;
    std::int64_t request;
  };

  std::vector<std::byte>& new_buffer() { return buffers_.emplace_back(); }
  void take_rows();
  ArrayView gather_requests(const std::vector<const ArrayView*>& arrays);
  ArrayView gather_rows(const std::vector<const ArrayView*>& arrays);
  void take_results();
  ArrayView copy(const ArrayView& array);
  template <typename Member>
  std::vector<const ArrayView*> arrays(Member member) const;

  std::vector<Segment> segments_;
  std::vector<Source> sources_;
  std::vector<std::int64_t> row_;
  std::vector<std::vector<std::byte>> buffers_;
  std::vector<std::vector<double>> sums_;
  std::vector<double> score_, slope_;
  Plan plan_;
  Results results_;
};

}  // namespace igonnx
