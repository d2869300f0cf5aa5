// From a plain class to an operator of ONNX Runtime.
//
// An operator is a class with
//
//   static constexpr const char* name               in the domain ai.igonnx
//   static constexpr std::array<abi::ElementType, n> inputs, outputs
//   static constexpr std::size_t required           optional: inputs from here on may be absent
//   static constexpr bool variadic                  optional: the last input may come 1 or more
//   times static constexpr std::array<std::size_t, k> shaped_like
//                                                   output 0 has the shape of any of these inputs
//   static constexpr std::array<InPlace, m> in_place
//                                                   optional: buffers that may be shared
//   explicit Operator(const Attributes&)            reads the node's attributes
//   void compute(const Call&) const                 may throw; called by several threads at once
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort.hpp"

namespace igonnx {

/// A custom operator that knows the API it was registered with.
struct CustomOperator : abi::CustomOp {
  ort::Api api;
};

namespace plugin {

/// The element type of T: float or double.
template <typename T>
inline constexpr abi::ElementType element_type =
    std::is_same_v<T, float> ? abi::ElementType::float32 : abi::ElementType::float64;

/// An input whose buffer an output may take over, where nobody reads that input later.
struct InPlace {
  int input;
  int output;
};

/// The node's attributes.
class Attributes {
 public:
  Attributes(const ort::Api& api, const abi::KernelInfo* info) : api_(api), info_(info) {}

  /// A number, written as a float or as an integer; `otherwise` if the node has none.
  float number(const char* name, float otherwise) const {
    float real = 0;
    if (succeeds(abi::KernelInfoGetAttribute_float, name, &real)) return real;
    return whole(name, otherwise);
  }

  std::int64_t integer(const char* name, std::int64_t otherwise) const {
    return whole(name, otherwise);
  }

  std::vector<std::int64_t> integers(const char* name) const {
    std::size_t count = 0;
    if (!succeeds(abi::KernelInfoGetAttributeArray_int64, name, nullptr, &count)) return {};
    std::vector<std::int64_t> values(count);
    api_(abi::KernelInfoGetAttributeArray_int64, info_, name, values.data(), &count);
    return values;
  }

  /// Data and shape of input `index` where the graph holds it as a constant, else no data. They
  /// last as long as the session.
  template <typename T>
  std::pair<const T*, std::vector<std::int64_t>> constant(std::size_t index) const {
    int is_constant = 0;
    const abi::Value* value = nullptr;
    api_(abi::KernelInfoGetConstantInput_tensor, info_, index, &is_constant, &value);
    if (is_constant == 0 || value == nullptr) return {};
    const auto info = ort::make<ort::TensorInfo>(api_, abi::GetTensorTypeAndShape, value);
    void* data = ort::get<void*>(api_, abi::GetTensorMutableData, const_cast<abi::Value*>(value));
    return {static_cast<const T*>(data), ort::shape_of(api_, info.get())};
  }

 private:
  template <typename T>
  T whole(const char* name, T otherwise) const {
    std::int64_t value = 0;
    return succeeds(abi::KernelInfoGetAttribute_int64, name, &value) ? static_cast<T>(value)
                                                                     : otherwise;
  }

  template <typename Entry, typename... Results>
  bool succeeds(Entry entry, const char* name, Results... results) const {
    return succeeded(api_.status_of(entry, info_, name, results...));
  }

  bool succeeded(abi::Status* status) const {
    if (status == nullptr) return true;
    api_(abi::ReleaseStatus, status);
    return false;
  }

  ort::Api api_;
  const abi::KernelInfo* info_;
};

/// A tensor's elements and its shape.
template <typename T>
struct Tensor {
  T* data;
  std::vector<std::int64_t> shape;

  std::int64_t size() const {
    return std::reduce(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  }
};

/// One run of a node.
class Call {
 public:
  Call(const ort::Api& api, abi::KernelContext* context) : api_(api), context_(context) {}

  std::size_t input_count() const {
    return ort::get<std::size_t>(api_, abi::KernelContext_GetInputCount, context_);
  }

  /// Input `index`; its data is null where an optional input is absent.
  template <typename T>
  Tensor<const T> input(std::size_t index) const {
    const auto* value =
        ort::get<const abi::Value*>(api_, abi::KernelContext_GetInput, context_, index);
    if (value == nullptr) return {nullptr, {}};
    const auto info = ort::make<ort::TensorInfo>(api_, abi::GetTensorTypeAndShape, value);
    // API 17 has only the function for mutable data; nothing is written through it.
    void* data = ort::get<void*>(api_, abi::GetTensorMutableData, const_cast<abi::Value*>(value));
    return {static_cast<const T*>(data), ort::shape_of(api_, info.get())};
  }

  /// Output `index`, made with `shape`; its elements are not set.
  template <typename T>
  T* output(std::size_t index, const std::vector<std::int64_t>& shape) const {
    auto* value = ort::get<abi::Value*>(api_, abi::KernelContext_GetOutput, context_, index,
                                        shape.data(), shape.size());
    return static_cast<T*>(ort::get<void*>(api_, abi::GetTensorMutableData, value));
  }

  /// Runs `task(0)` to `task(tasks - 1)` on the runtime's threads; what a task throws is thrown
  /// when all are done. A task should last long enough (about 10 us) to hide what it costs to hand
  /// it out.
  template <typename Task>
  void parallel_for(std::size_t tasks, const Task& task) const {
    if (tasks == 1) {
      task(std::size_t{0});
    } else if (tasks > 1) {
      Tasks<Task> all{task, {}, nullptr};
      // 0 batches: the runtime shares the tasks out, one run of neighbours to each thread.
      api_(abi::KernelContext_ParallelFor, context_, &Tasks<Task>::run, tasks, std::size_t{0},
           &all);
      if (all.error) std::rethrow_exception(all.error);
    }
  }

  /// Cuts `count` elements into blocks of at most `block` and runs `task(first, size)` for each.
  template <typename Task>
  void parallel_blocks(std::size_t count, std::size_t block, const Task& task) const {
    parallel_for((count + block - 1) / block, [&](std::size_t index) {
      const std::size_t first = index * block;
      task(first, std::min(block, count - first));
    });
  }

 private:
  // Nothing may be thrown through the runtime.
  template <typename Task>
  struct Tasks {
    const Task& task;
    std::mutex mutex;
    std::exception_ptr error;

    static void run(void* user, std::size_t index) {
      auto& self = *static_cast<Tasks*>(user);
      try {
        self.task(index);
      } catch (...) {
        const std::lock_guard lock(self.mutex);
        if (!self.error) self.error = std::current_exception();
      }
    }
  };

  ort::Api api_;
  abi::KernelContext* context_;
};

/// Throws unless `holds`; the runtime reports the message with the node's name.
inline void require(bool holds, const std::string& message) {
  if (!holds) throw ort::StatusError(abi::ErrorCode::invalid_argument, message);
}

/// Runs `body`, which may throw, for a C caller that wants a status.
template <typename Body>
abi::Status* as_status(const ort::Api& api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const ort::StatusError& error) {
    return api.status_of(abi::CreateStatus, error.code(), error.what());
  } catch (const std::exception& error) {
    return api.status_of(abi::CreateStatus, abi::ErrorCode::fail, error.what());
  }
}

inline const ort::Api& api_of(const abi::CustomOp* self) {
  return static_cast<const CustomOperator*>(self)->api;
}

// Whether every dimension is a number or has a symbol. The runtime shows an unknown shape as one
// without dimensions, so a scalar is not known either: an unknown shape taken for one would
// overrule what the graph declares. Two dimensions of which nothing is known must not pass for
// equal.
inline bool is_known(const ort::Api& api, const abi::TensorInfo* info) {
  const std::vector<std::int64_t> shape = ort::shape_of(api, info);
  std::vector<const char*> symbols(shape.size());
  api(abi::GetSymbolicDimensions, info, symbols.data(), symbols.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 && (symbols[i] == nullptr || *symbols[i] == '\0')) return false;
  }
  return !shape.empty();
}

// Gives output 0 the shape of an input, if one is known.
template <typename Operator>
void infer_shape(const ort::Api& api, abi::ShapeInferContext* context) {
  for (const std::size_t index : Operator::shaped_like) {
    const auto* info =
        ort::get<abi::TensorInfo*>(api, abi::ShapeInferContext_GetInputTypeShape, context, index);
    if (is_known(api, info)) {
      api(abi::ShapeInferContext_SetOutputTypeShape, context, std::size_t{0}, info);
      return;
    }
  }
}

template <typename Operator>
abi::Characteristic input_characteristic(std::size_t index) {
  if constexpr (requires { Operator::variadic; }) {
    if (index + 1 == Operator::inputs.size()) return abi::Characteristic::variadic;
  }
  if constexpr (requires { Operator::required; }) {
    if (index >= Operator::required) return abi::Characteristic::optional;
  }
  return abi::Characteristic::required;
}

// The pairs of Operator::in_place, inputs and outputs apart. The runtime takes them as mutable.
template <typename Operator>
struct InPlacePairs {
  static constexpr std::size_t count = Operator::in_place.size();
  std::array<int, count> inputs;
  std::array<int, count> outputs;

  InPlacePairs() {
    for (std::size_t i = 0; i < count; ++i) {
      inputs[i] = Operator::in_place[i].input;
      outputs[i] = Operator::in_place[i].output;
    }
  }
};

template <typename Operator>
std::size_t may_in_place([[maybe_unused]] int** inputs, [[maybe_unused]] int** outputs) {
  if constexpr (requires { Operator::in_place; }) {
    static InPlacePairs<Operator> pairs;
    *inputs = pairs.inputs.data();
    *outputs = pairs.outputs.data();
    return pairs.count;
  }
  return 0;
}

template <typename Operator>
struct Kernel {
  ort::Api api;
  Operator op;
};

/// The operator, laid out for version `abi_version` of the C API.
template <typename Operator>
CustomOperator make_operator(const ort::Api& api, std::uint32_t abi_version) {
  using abi::CustomOp;
  CustomOp op{};
  op.version = abi_version;
  op.GetName = [](const CustomOp*) { return Operator::name; };
  op.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const CustomOp*) { return Operator::inputs.size(); };
  op.GetInputType = [](const CustomOp*, std::size_t index) { return Operator::inputs[index]; };
  op.GetOutputTypeCount = [](const CustomOp*) { return Operator::outputs.size(); };
  op.GetOutputType = [](const CustomOp*, std::size_t index) { return Operator::outputs[index]; };
  op.GetInputCharacteristic = [](const CustomOp*, std::size_t index) {
    return input_characteristic<Operator>(index);
  };
  op.GetOutputCharacteristic = [](const CustomOp*, std::size_t) {
    return abi::Characteristic::required;
  };
  op.GetInputMemoryType = [](const CustomOp*, std::size_t) { return abi::MemoryType::standard; };
  op.GetVariadicInputMinArity = [](const CustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const CustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
  op.CreateKernelV2 = [](const CustomOp* self, abi::Table*, const abi::KernelInfo* info,
                         void** kernel) {
    const ort::Api& table = api_of(self);
    return as_status(
        table, [&] { *kernel = new Kernel<Operator>{table, Operator(Attributes(table, info))}; });
  };
  op.KernelComputeV2 = [](void* kernel, abi::KernelContext* context) {
    const auto* self = static_cast<const Kernel<Operator>*>(kernel);
    return as_status(self->api, [&] { self->op.compute(Call(self->api, context)); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel<Operator>*>(kernel); };
  op.InferOutputShapeFn = [](const CustomOp* self, abi::ShapeInferContext* context) {
    const ort::Api& table = api_of(self);
    return as_status(table, [&] { infer_shape<Operator>(table, context); });
  };
  op.GetStartVersion = [](const CustomOp*) { return 1; };
  op.GetEndVersion = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
  op.GetMayInplace = may_in_place<Operator>;
  op.ReleaseMayInplace = [](int*, int*) {};
  op.GetAliasMap = [](int**, int**) { return std::size_t{0}; };
  op.ReleaseAliasMap = [](int*, int*) {};
  return {op, api};
}

}  // namespace plugin

}  // namespace igonnx
