#include "chunk_runner.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "kernels/accumulate.hpp"

namespace igonnx {

namespace {

// Arguments are bound to the session, not handed over with each run: what does not change between
// chunks is then copied to a device once.
template <typename T>
class TypedChunkRunner final : public ChunkRunner {
 public:
  TypedChunkRunner(const ort::Api& api, abi::Session* session, const Plan& plan,
                   const Results& results)
      : api_(api),
        session_(session),
        plan_(plan),
        results_(results),
        memory_(ort::make<ort::MemoryInfo>(api, abi::CreateCpuMemoryInfo,
                                           abi::AllocatorType::device, abi::MemoryType::standard)),
        binding_(ort::make<ort::IoBinding>(api, abi::CreateIoBinding, session)),
        gradients_(plan.explained.size()),
        padded_(plan.by_row.size()) {
    const auto most_rows = static_cast<std::size_t>(
        plan.pad ? plan.batch_size : std::min(plan.batch_size, plan.rows()));
    row_.resize(most_rows);
    score_.resize(most_rows);
    if (plan.gradients) {
      alpha_.resize(most_rows);
      weight_.resize(most_rows);
      slope_.resize(most_rows);
    }
    for (const FixedInput& input : plan.fixed) {
      if (!input.batched) bind_array(input.name, input.array);
    }
  }

  void run(std::int64_t first, std::int64_t end, const abi::RunOptions* options) override {
    bind_requests(plan_.row_data()[first], plan_.row_data()[end - 1] + 1);
    bind_rows(first, end);
    api_(abi::SynchronizeBoundInputs, binding_.get());
    api_(abi::RunWithBinding, session_, options, binding_.get());
    api_(abi::SynchronizeBoundOutputs, binding_.get());
    collect(first, end);
  }

 private:
  // Binds the slices of requests begin..end - 1, unless they are bound.
  void bind_requests(std::int64_t begin, std::int64_t end) {
    if (begin == first_request_ && end == end_request_) return;
    for (std::size_t i = 0; i < plan_.explained.size(); ++i) {
      const ExplainedInput& input = plan_.explained[i];
      bind_slice("x:" + input.name, input.x, begin, end);
      bind_slice("baseline:" + input.name, input.baseline, begin, end);
      if (plan_.gradients) bind_gradient(i, end - begin);
    }
    for (const FixedInput& input : plan_.fixed) {
      if (input.batched) bind_slice(input.name, input.array, begin, end);
    }
    bind_slice("cotangent", plan_.cotangent, begin, end);
    first_request_ = begin;
    end_request_ = end;
  }

  // Binds what belongs to the rows. A padded chunk repeats its last row, with weight 0.
  void bind_rows(std::int64_t first, std::int64_t end) {
    const std::int64_t rows = plan_.pad ? plan_.batch_size : end - first;
    for (std::int64_t i = 0; i < rows; ++i) {
      row_[i] = plan_.row_data()[std::min(first + i, end - 1)] - first_request_;
    }
    bind_input("row", tensor(row_.data(), {rows}, abi::ElementType::int64));
    for (std::size_t i = 0; i < plan_.by_row.size(); ++i) {
      const RowInput& input = plan_.by_row[i];
      const ArrayView part = input.array.part(first, end);
      bind_array(input.name, rows == end - first ? part : filled_up(part, padded_[i], rows));
    }
    if (plan_.gradients) bind_path(first, end, rows);
    if (rows != bound_rows_) {
      bind_output("score", tensor(score_.data(), {rows}, plan_.type()));
      if (plan_.gradients) bind_output("slope", tensor(slope_.data(), {rows}, plan_.type()));
      bound_rows_ = rows;
    }
  }

  void bind_path(std::int64_t first, std::int64_t end, std::int64_t rows) {
    const auto* alpha = static_cast<const T*>(plan_.alpha.data);
    const auto* weight = static_cast<const T*>(plan_.weight.data);
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t from = std::min(first + i, end - 1);
      alpha_[i] = alpha[from];
      weight_[i] = first + i < end ? weight[from] : T{0};
    }
    bind_input("alpha", tensor(alpha_.data(), {rows}, plan_.type()));
    bind_input("weight", tensor(weight_.data(), {rows}, plan_.type()));
  }

  // A copy of the slices in `array`, the last of them repeated to make `rows`.
  static ArrayView filled_up(const ArrayView& array, std::vector<std::byte>& buffer,
                             std::int64_t rows) {
    const auto slice = static_cast<std::size_t>(array.slice_bytes());
    const auto* data = static_cast<const std::byte*>(array.data);
    buffer.resize(slice * static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t from = std::min(i, array.shape.front() - 1);
      std::copy_n(data + from * slice, slice, buffer.data() + i * slice);
    }
    ArrayView result = array;
    result.data = buffer.data();
    result.shape.front() = rows;
    return result;
  }

  void collect(std::int64_t first, std::int64_t end) {
    std::copy_n(score_.begin(), end - first, results_.score + first);
    if (!plan_.gradients) return;
    std::copy_n(slope_.begin(), end - first, results_.slope + first);
    for (std::size_t i = 0; i < plan_.explained.size(); ++i) {
      const std::int64_t slice = plan_.explained[i].x.slice_size();
      kernels::accumulate(gradients_[i].data(),
                          results_.weighted_gradient[i] + first_request_ * slice,
                          static_cast<std::size_t>((end_request_ - first_request_) * slice));
    }
  }

  void bind_gradient(std::size_t index, std::int64_t requests) {
    const ExplainedInput& input = plan_.explained[index];
    std::vector<T>& buffer = gradients_[index];
    const auto count = static_cast<std::size_t>(requests * input.x.slice_size());
    if (buffer.size() < count) buffer.resize(count);
    std::vector<std::int64_t> shape = input.x.shape;
    shape.front() = requests;
    bind_output("weighted_gradient:" + input.name, tensor(buffer.data(), shape, plan_.type()));
  }

  void bind_slice(const std::string& name, const ArrayView& array, std::int64_t begin,
                  std::int64_t end) {
    bind_array(name, array.part(begin, end));
  }

  void bind_array(const std::string& name, const ArrayView& array) {
    bind_input(name, tensor(array.data, array.shape, array.type));
  }

  ort::Value tensor(const void* data, const std::vector<std::int64_t>& shape,
                    abi::ElementType type) const {
    const ArrayView view{data, type, shape};
    return ort::tensor_over(api_, memory_, data, static_cast<std::size_t>(view.bytes()), shape,
                            type);
  }

  void bind_input(const std::string& name, const ort::Value& value) {
    api_(abi::BindInput, binding_.get(), name.c_str(), value.get());
  }

  void bind_output(const std::string& name, const ort::Value& value) {
    api_(abi::BindOutput, binding_.get(), name.c_str(), value.get());
  }

  ort::Api api_;
  abi::Session* session_;
  const Plan& plan_;
  const Results& results_;
  ort::MemoryInfo memory_;
  ort::IoBinding binding_;
  // One chunk's arguments and results.
  std::vector<std::int64_t> row_;
  std::vector<T> alpha_, weight_, score_, slope_;
  std::vector<std::vector<T>> gradients_;
  std::vector<std::vector<std::byte>> padded_;  // inputs by row, where a chunk is filled up
  // What is bound now.
  std::int64_t first_request_ = -1;
  std::int64_t end_request_ = -1;
  std::int64_t bound_rows_ = -1;
};

}  // namespace

std::unique_ptr<ChunkRunner> make_chunk_runner(const ort::Api& api, abi::Session* session,
                                               const Plan& plan, const Results& results) {
  if (plan.type() == abi::ElementType::float32) {
    return std::make_unique<TypedChunkRunner<float>>(api, session, plan, results);
  }
  return std::make_unique<TypedChunkRunner<double>>(api, session, plan, results);
}

}  // namespace igonnx
