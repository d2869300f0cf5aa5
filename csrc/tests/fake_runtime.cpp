#include "fake_runtime.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <thread>
#include <utility>

#include "check.hpp"
#include "plan.hpp"

// The insides of the handles, as the stand-in has them.
namespace igonnx::abi {

struct Status {
  ErrorCode code;
  std::string message;
};

struct MemoryInfo {};

struct TensorInfo {
  ElementType type;
  std::vector<std::int64_t> shape;
};

struct Value {
  ElementType type;
  std::vector<std::int64_t> shape;
  void* data;
};

struct CustomOpDomain {
  std::string name;
};

struct KernelInfo {
  tests::FakeAttributes attributes;
};

struct KernelContext {
  std::vector<Value> inputs;
  std::vector<std::unique_ptr<tests::FakeTensor>> tensors;  // the outputs
  std::vector<Value> outputs;
};

}  // namespace igonnx::abi

namespace igonnx::tests {

namespace {

constexpr std::size_t table_size = 400;
std::atomic<int> live{0};

template <typename T>
T* made(T* object) {
  ++live;
  return object;
}

template <typename T>
void release(T* object) {
  if (object == nullptr) return;
  --live;
  delete object;
}

abi::Status* refusal(const std::string& message) {
  return made(new abi::Status{abi::ErrorCode::invalid_argument, message});
}

template <std::size_t slot>
void missing() {
  std::fprintf(stderr, "the stand-in for onnxruntime lacks entry %zu\n", slot);
  std::abort();
}

template <std::size_t... slots>
std::array<abi::Function, table_size> all_missing(std::index_sequence<slots...>) {
  return {&missing<slots>...};
}

struct Entries {
  std::array<abi::Function, table_size> table;

  template <std::size_t slot, typename Signature>
  void set(abi::Entry<slot, Signature>, Signature* function) {
    table[slot] = reinterpret_cast<abi::Function>(function);
  }
};

void add_statuses(Entries& entries) {
  entries.set(
      abi::CreateStatus, +[](abi::ErrorCode code, const char* message) {
        return made(new abi::Status{code, message});
      });
  entries.set(abi::GetErrorCode, +[](const abi::Status* status) { return status->code; });
  entries.set(
      abi::GetErrorMessage, +[](const abi::Status* status) { return status->message.c_str(); });
  entries.set(abi::ReleaseStatus, +[](abi::Status* status) { release(status); });
}

void add_tensors(Entries& entries) {
  using abi::Status;
  entries.set(
      abi::CreateCpuMemoryInfo,
      +[](abi::AllocatorType, abi::MemoryType, abi::MemoryInfo** out) -> Status* {
        *out = made(new abi::MemoryInfo);
        return nullptr;
      });
  entries.set(abi::ReleaseMemoryInfo, +[](abi::MemoryInfo* memory) { release(memory); });
  entries.set(
      abi::CreateTensorWithDataAsOrtValue,
      +[](const abi::MemoryInfo*, void* data, std::size_t, const std::int64_t* shape,
          std::size_t rank, abi::ElementType type, abi::Value** out) -> Status* {
        *out = made(new abi::Value{type, {shape, shape + rank}, data});
        return nullptr;
      });
  entries.set(abi::ReleaseValue, +[](abi::Value* value) { release(value); });
  entries.set(
      abi::GetTensorMutableData, +[](abi::Value* value, void** out) -> Status* {
        *out = value->data;
        return nullptr;
      });
  entries.set(
      abi::GetTensorTypeAndShape, +[](const abi::Value* value, abi::TensorInfo** out) -> Status* {
        *out = made(new abi::TensorInfo{value->type, value->shape});
        return nullptr;
      });
  entries.set(abi::ReleaseTensorTypeAndShapeInfo, +[](abi::TensorInfo* info) { release(info); });
  entries.set(
      abi::GetTensorElementType,
      +[](const abi::TensorInfo* info, abi::ElementType* out) -> Status* {
        *out = info->type;
        return nullptr;
      });
  entries.set(
      abi::GetDimensionsCount, +[](const abi::TensorInfo* info, std::size_t* out) -> Status* {
        *out = info->shape.size();
        return nullptr;
      });
  entries.set(
      abi::GetDimensions,
      +[](const abi::TensorInfo* info, std::int64_t* out, std::size_t rank) -> Status* {
        for (std::size_t i = 0; i < rank; ++i) out[i] = info->shape.at(i);
        return nullptr;
      });
}

void add_domains(Entries& entries) {
  using abi::Status;
  entries.set(
      abi::CreateCustomOpDomain, +[](const char* name, abi::CustomOpDomain** out) -> Status* {
        *out = made(new abi::CustomOpDomain{name});
        return nullptr;
      });
  entries.set(abi::ReleaseCustomOpDomain, +[](abi::CustomOpDomain* domain) { release(domain); });
  entries.set(
      abi::CustomOpDomain_Add, +[](abi::CustomOpDomain*, const abi::CustomOp* op) -> Status* {
        FakeRuntime::operators().push_back(op);
        return nullptr;
      });
}

// Every task in a thread of its own turn: four threads take the next task until none is left.
abi::Status* parallel_for(const abi::KernelContext*, void (*task)(void*, std::size_t),
                          std::size_t tasks, std::size_t, void* user) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < tasks; i = next++) task(user, i);
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return nullptr;
}

template <typename T>
abi::Status* attribute(const abi::KernelInfo* info, const char* name, T* out) {
  const auto& numbers = info->attributes.numbers;
  const auto found = numbers.find(name);
  if (found == numbers.end()) return refusal(std::string("no attribute ") + name);
  *out = static_cast<T>(found->second);
  return nullptr;
}

// As the runtime's: without an array, the number of elements; with one that is too small, a
// refusal.
abi::Status* list_attribute(const abi::KernelInfo* info, const char* name, std::int64_t* out,
                            std::size_t* size) {
  const auto& lists = info->attributes.lists;
  const auto found = lists.find(name);
  if (found == lists.end()) return refusal(std::string("no attribute ") + name);
  const std::size_t room = std::exchange(*size, found->second.size());
  if (out == nullptr) return nullptr;
  if (room < found->second.size()) return refusal(std::string("too little room for ") + name);
  std::copy(found->second.begin(), found->second.end(), out);
  return nullptr;
}

void add_kernels(Entries& entries) {
  using abi::Status;
  entries.set(abi::KernelInfoGetAttribute_float, &attribute<float>);
  entries.set(abi::KernelInfoGetAttribute_int64, &attribute<std::int64_t>);
  entries.set(abi::KernelInfoGetAttributeArray_int64, &list_attribute);
  entries.set(
      abi::KernelContext_GetInputCount,
      +[](const abi::KernelContext* context, std::size_t* out) -> Status* {
        *out = context->inputs.size();
        return nullptr;
      });
  entries.set(
      abi::KernelContext_GetInput,
      +[](const abi::KernelContext* context, std::size_t index, const abi::Value** out) -> Status* {
        *out = &context->inputs.at(index);
        return nullptr;
      });
  entries.set(
      abi::KernelContext_GetOutput,
      +[](abi::KernelContext* context, std::size_t index, const std::int64_t* shape,
          std::size_t rank, abi::Value** out) -> Status* {
        const abi::ElementType type = context->outputs.at(index).type;
        auto tensor =
            std::make_unique<FakeTensor>(type, std::vector<std::int64_t>(shape, shape + rank));
        context->outputs[index] = {type, tensor->shape(), tensor->address()};
        context->tensors[index] = std::move(tensor);
        *out = &context->outputs[index];
        return nullptr;
      });
  entries.set(abi::KernelContext_ParallelFor, &parallel_for);
}

abi::Table* table() {
  static const Entries entries = [] {
    Entries result{all_missing(std::make_index_sequence<table_size>())};
    add_statuses(result);
    add_tensors(result);
    add_domains(result);
    add_kernels(result);
    return result;
  }();
  return entries.table.data();
}

// Throws what a function of an operator returns, as the runtime would report it.
void require_success(abi::Status* status) {
  if (status == nullptr) return;
  const ort::StatusError error(status->code, status->message);
  release(status);
  throw error;
}

}  // namespace

ort::Api FakeRuntime::api() { return ort::Api(table()); }

const abi::ApiBase& FakeRuntime::base() {
  static const abi::ApiBase base{+[](std::uint32_t) { return table(); }, +[] { return "1.23.0"; }};
  return base;
}

int FakeRuntime::live_objects() { return live; }

std::vector<const abi::CustomOp*>& FakeRuntime::operators() {
  static std::vector<const abi::CustomOp*> operators;
  return operators;
}

const abi::CustomOp& FakeRuntime::operator_named(const std::string& name, abi::ElementType type) {
  for (const abi::CustomOp* op : operators()) {
    if (op->GetName(op) == name && op->GetInputType(op, 0) == type) return *op;
  }
  throw Failure("no operator " + name + " for " + name_of(type));
}

FakeTensor::FakeTensor(abi::ElementType type, std::vector<std::int64_t> shape)
    : type_(type),
      shape_(std::move(shape)),
      memory_(new std::byte[(size() + 1) * element_bytes()]) {}

std::size_t FakeTensor::size() const {
  return static_cast<std::size_t>(
      std::reduce(shape_.begin(), shape_.end(), std::int64_t{1}, std::multiplies<>()));
}

std::size_t FakeTensor::element_bytes() const { return static_cast<std::size_t>(size_of(type_)); }

FakeNode::FakeNode(const abi::CustomOp& op, const FakeAttributes& attributes) : op_(op) {
  const abi::KernelInfo info{attributes};
  require_success(op.CreateKernelV2(&op, table(), &info, &kernel_));
}

FakeNode::~FakeNode() { op_.KernelDestroy(kernel_); }

std::vector<std::unique_ptr<FakeTensor>> FakeNode::run(
    const std::vector<FakeTensor*>& inputs) const {
  abi::KernelContext context;
  for (FakeTensor* each : inputs) {
    context.inputs.push_back({each->type(), each->shape(), each->address()});
  }
  for (std::size_t i = 0; i < op_.GetOutputTypeCount(&op_); ++i) {
    context.outputs.push_back({op_.GetOutputType(&op_, i), {}, nullptr});
  }
  context.tensors.resize(context.outputs.size());
  require_success(op_.KernelComputeV2(kernel_, &context));
  return std::move(context.tensors);
}

}  // namespace igonnx::tests
