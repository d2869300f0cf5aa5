// ONNX Runtime's C ABI for C++: calls that throw, and handles that release themselves.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ort_abi.h"

namespace igonnx::ort {

/// A status other than success: the runtime's message on one line, and its code.
class StatusError : public std::runtime_error {
 public:
  StatusError(abi::ErrorCode code, const std::string& message)
      : std::runtime_error(message), code_(code) {}

  abi::ErrorCode code() const noexcept { return code_; }

 private:
  abi::ErrorCode code_;
};

/// The table of API functions. `api(abi::Entry, arguments...)` calls one of them; where it returns
/// a status, anything but success is thrown as a StatusError.
class Api {
 public:
  explicit Api(abi::Table* table) noexcept : table_(table) {}

  template <std::size_t slot, typename... Parameters>
  void operator()(abi::Entry<slot, abi::Status*(Parameters...)> entry,
                  std::type_identity_t<Parameters>... arguments) const {
    if (abi::Status* status = status_of(entry, arguments...)) throw_status(status);
  }

  template <std::size_t slot, typename Result, typename... Parameters>
    requires(!std::same_as<Result, abi::Status*>)
  Result operator()(abi::Entry<slot, Result(Parameters...)>,
                    std::type_identity_t<Parameters>... arguments) const {
    return reinterpret_cast<Result (*)(Parameters...)>(table_[slot])(arguments...);
  }

  /// The status itself, null on success; the caller owns it.
  template <std::size_t slot, typename... Parameters>
  [[nodiscard]] abi::Status* status_of(abi::Entry<slot, abi::Status*(Parameters...)>,
                                       std::type_identity_t<Parameters>... arguments) const {
    return reinterpret_cast<abi::Status* (*)(Parameters...)>(table_[slot])(arguments...);
  }

 private:
  [[noreturn]] void throw_status(abi::Status* status) const {
    const abi::ErrorCode code = (*this)(abi::GetErrorCode, status);
    std::string message = (*this)(abi::GetErrorMessage, status);
    (*this)(abi::ReleaseStatus, status);
    for (char& character : message) {
      if (character == '\n' || character == '\r') character = ' ';
    }
    message.erase(message.find_last_not_of(' ') + 1);
    throw StatusError(code, message);
  }

  abi::Table* table_;
};

template <typename T, auto release>
struct Releaser {
  Api api;
  void operator()(T* handle) const { api(release, handle); }
};

/// Owns one object of the runtime.
template <typename T, auto release>
class Handle {
 public:
  Handle(Api api, T* object) : object_(object, Releaser<T, release>{api}) {}

  T* get() const noexcept { return object_.get(); }

 private:
  std::unique_ptr<T, Releaser<T, release>> object_;
};

using CudaProviderOptions = Handle<abi::CudaProviderOptions, abi::ReleaseCUDAProviderOptions>;
using CustomOpDomain = Handle<abi::CustomOpDomain, abi::ReleaseCustomOpDomain>;
using Env = Handle<abi::Env, abi::ReleaseEnv>;
using IoBinding = Handle<abi::IoBinding, abi::ReleaseIoBinding>;
using MemoryInfo = Handle<abi::MemoryInfo, abi::ReleaseMemoryInfo>;
using ModelMetadata = Handle<abi::ModelMetadata, abi::ReleaseModelMetadata>;
using RunOptions = Handle<abi::RunOptions, abi::ReleaseRunOptions>;
using Session = Handle<abi::Session, abi::ReleaseSession>;
using SessionOptions = Handle<abi::SessionOptions, abi::ReleaseSessionOptions>;
using TensorInfo = Handle<abi::TensorInfo, abi::ReleaseTensorTypeAndShapeInfo>;
using TypeInfo = Handle<abi::TypeInfo, abi::ReleaseTypeInfo>;
using Value = Handle<abi::Value, abi::ReleaseValue>;

/// Calls a function whose last parameter is the address of the result; returns the result.
template <typename T, std::size_t slot, typename... Parameters, typename... Arguments>
T get(const Api& api, abi::Entry<slot, abi::Status*(Parameters...)> entry,
      Arguments&&... arguments) {
  T result{};
  api(entry, std::forward<Arguments>(arguments)..., &result);
  return result;
}

/// Same, for a result that must be released.
template <typename Owner, typename Entry, typename... Arguments>
Owner make(const Api& api, Entry entry, Arguments&&... arguments) {
  using Pointer = decltype(std::declval<Owner>().get());
  return Owner(api, get<Pointer>(api, entry, std::forward<Arguments>(arguments)...));
}

/// The dimensions of a tensor, -1 where one is symbolic.
inline std::vector<std::int64_t> shape_of(const Api& api, const abi::TensorInfo* info) {
  std::vector<std::int64_t> shape(get<std::size_t>(api, abi::GetDimensionsCount, info));
  api(abi::GetDimensions, info, shape.data(), shape.size());
  return shape;
}

/// A tensor over memory that someone else owns and keeps alive.
inline Value tensor_over(const Api& api, const MemoryInfo& memory, const void* data,
                         std::size_t bytes, const std::vector<std::int64_t>& shape,
                         abi::ElementType type) {
  // The runtime takes a mutable pointer for inputs too; it does not write to a graph's inputs.
  return make<Value>(api, abi::CreateTensorWithDataAsOrtValue, memory.get(),
                     const_cast<void*>(data), bytes, shape.data(), shape.size(), type);
}

}  // namespace igonnx::ort
