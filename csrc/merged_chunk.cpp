#include "merged_chunk.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/accumulate.hpp"

namespace igonnx {

MergedChunk::MergedChunk(const std::vector<Segment>& segments) : segments_(segments) {
  const Plan& like = *segments.front().plan;
  take_rows();
  for (std::size_t i = 0; i < like.explained.size(); ++i) {
    plan_.explained.push_back(
        {like.explained[i].name,
         gather_requests(arrays([i](const Plan& plan) { return &plan.explained[i].x; })),
         gather_requests(arrays([i](const Plan& plan) { return &plan.explained[i].baseline; }))});
  }
  for (std::size_t i = 0; i < like.fixed.size(); ++i) {
    const FixedInput& input = like.fixed[i];
    const auto of_plan = [i](const Plan& plan) { return &plan.fixed[i].array; };
    plan_.fixed.push_back({input.name,
                           input.batched ? gather_requests(arrays(of_plan)) : copy(input.array),
                           input.batched});
  }
  plan_.cotangent = gather_requests(arrays([](const Plan& plan) { return &plan.cotangent; }));
  plan_.row = {row_.data(), abi::ElementType::int64, {static_cast<std::int64_t>(row_.size())}};
  for (std::size_t i = 0; i < like.by_row.size(); ++i) {
    const auto of_plan = [i](const Plan& plan) { return &plan.by_row[i].array; };
    plan_.by_row.push_back({like.by_row[i].name, gather_rows(arrays(of_plan))});
  }
  plan_.gradients = like.gradients;
  if (like.gradients) {
    plan_.alpha = gather_rows(arrays([](const Plan& plan) { return &plan.alpha; }));
    plan_.weight = gather_rows(arrays([](const Plan& plan) { return &plan.weight; }));
  }
  plan_.pad = like.pad;
  plan_.batch_size = like.pad ? like.batch_size : plan_.rows();
  take_results();
}

void MergedChunk::take_results() {
  score_.resize(row_.size());
  results_.score = score_.data();
  if (!plan_.gradients) return;
  slope_.resize(row_.size());
  results_.slope = slope_.data();
  for (const ExplainedInput& input : plan_.explained) {
    sums_.emplace_back(static_cast<std::size_t>(input.x.slice_size()) * sources_.size());
    results_.weighted_gradient.push_back(sums_.back().data());
  }
}

void MergedChunk::scatter(std::size_t segment, const Results& target) const {
  std::size_t before = 0;
  for (std::size_t i = 0; i < segment; ++i) before += segments_[i].end - segments_[i].first;
  const Segment& its = segments_[segment];
  std::copy_n(score_.begin() + before, its.end - its.first, target.score + its.first);
  if (!plan_.gradients) return;
  std::copy_n(slope_.begin() + before, its.end - its.first, target.slope + its.first);
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    const auto slice = static_cast<std::size_t>(plan_.explained[i].x.slice_size());
    for (std::size_t source = 0; source < sources_.size(); ++source) {
      if (sources_[source].segment != segment) continue;
      kernels::accumulate(sums_[i].data() + source * slice,
                          target.weighted_gradient[i] + sources_[source].request * slice, slice);
    }
  }
}

// Numbers the requests that have rows in the chunk from 0 on.
void MergedChunk::take_rows() {
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const auto& [plan, first, end] = segments_[i];
    for (std::int64_t row = first; row < end; ++row) {
      const std::int64_t request = plan->row_data()[row];
      const bool known =
          !sources_.empty() && sources_.back().segment == i && sources_.back().request == request;
      if (!known) sources_.push_back({i, request});
      row_.push_back(static_cast<std::int64_t>(sources_.size()) - 1);
    }
  }
}

ArrayView MergedChunk::gather_requests(const std::vector<const ArrayView*>& arrays) {
  ArrayView result = *arrays.front();
  result.shape.front() = static_cast<std::int64_t>(sources_.size());
  const auto slice = static_cast<std::size_t>(result.slice_bytes());
  std::vector<std::byte>& buffer = new_buffer();
  buffer.resize(slice * sources_.size());
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const auto* from = static_cast<const std::byte*>(arrays[sources_[i].segment]->data);
    if (slice > 0) {
      std::memcpy(buffer.data() + i * slice, from + sources_[i].request * slice, slice);
    }
  }
  result.data = buffer.data();
  return result;
}

ArrayView MergedChunk::gather_rows(const std::vector<const ArrayView*>& arrays) {
  ArrayView result = *arrays.front();
  result.shape.front() = static_cast<std::int64_t>(row_.size());
  const std::int64_t slice = result.slice_bytes();
  std::vector<std::byte>& buffer = new_buffer();
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const auto* data = static_cast<const std::byte*>(arrays[i]->data);
    buffer.insert(buffer.end(), data + segments_[i].first * slice, data + segments_[i].end * slice);
  }
  result.data = buffer.data();
  return result;
}

ArrayView MergedChunk::copy(const ArrayView& array) {
  ArrayView result = array;
  const auto* data = static_cast<const std::byte*>(array.data);
  std::vector<std::byte>& buffer = new_buffer();
  buffer.assign(data, data + array.bytes());
  result.data = buffer.data();
  return result;
}

template <typename Member>
std::vector<const ArrayView*> MergedChunk::arrays(Member member) const {
  std::vector<const ArrayView*> result;
  for (const Segment& segment : segments_) result.push_back(member(*segment.plan));
  return result;
}

}  // namespace igonnx
