#include "runtime.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "errors.hpp"
#include "operators/all.hpp"

namespace igonnx {

namespace {

constexpr const char* operator_domain = "ai.igonnx";
constexpr std::uint32_t table_version = 17;     // every entry of ort_abi.h is in this table
constexpr std::uint32_t in_place_version = 18;  // operators can share buffers from here on
constexpr std::uint32_t engine_version = 23;    // CreateEnv works in a loaded library from here on

struct Registry {
  std::mutex mutex;
  std::vector<const Runtime*> runtimes;
  std::string last_error;
};

Registry& registry() {
  static Registry* const instance = new Registry;  // never destroyed, as the runtimes in it
  return *instance;
}

// The API version of a release: 23 for "1.23.2".
std::uint32_t minor_version(const std::string& version) {
  unsigned major = 0;
  unsigned minor = 0;
  if (std::sscanf(version.c_str(), "%u.%u", &major, &minor) != 2) return 0;
  return major > 1 ? std::uint32_t(-1) : minor;
}

abi::Table* table_of(const abi::ApiBase& base, const std::string& version) {
  abi::Table* table = base.GetApi(table_version);
  if (table == nullptr) {
    throw EngineError("onnxruntime " + version + " is too old: igonnx needs 1.17 or later");
  }
  return table;
}

// Creates a status and a tensor and reads both back. Throws EngineError if anything comes back
// changed: then the slots of ort_abi.h are not those of this runtime, and no call is safe.
void check_table(const ort::Api& api, const std::string& version) {
  const auto require = [&version](bool holds, const char* what) {
    if (!holds) {
      throw EngineError("onnxruntime " + version + " has another C API than igonnx expects: " +
                        what + " did not survive a round trip");
    }
  };

  constexpr std::string_view message = "igonnx";
  abi::Status* status =
      api.status_of(abi::CreateStatus, abi::ErrorCode::invalid_argument, message.data());
  require(status != nullptr, "a status");
  require(api(abi::GetErrorCode, status) == abi::ErrorCode::invalid_argument, "a status code");
  require(api(abi::GetErrorMessage, status) == message, "a status message");
  api(abi::ReleaseStatus, status);

  const std::vector<std::int64_t> shape{2, 3};
  const std::array<double, 6> data{};
  const auto memory = ort::make<ort::MemoryInfo>(
      api, abi::CreateCpuMemoryInfo, abi::AllocatorType::device, abi::MemoryType::standard);
  const ort::Value tensor =
      ort::tensor_over(api, memory, data.data(), sizeof data, shape, abi::ElementType::float64);
  const auto info = ort::make<ort::TensorInfo>(api, abi::GetTensorTypeAndShape, tensor.get());
  require(ort::get<abi::ElementType>(api, abi::GetTensorElementType, info.get()) ==
              abi::ElementType::float64,
          "an element type");
  require(ort::shape_of(api, info.get()) == shape, "a shape");
  require(ort::get<void*>(api, abi::GetTensorMutableData, tensor.get()) == data.data(),
          "a data pointer");
}

ort::Api checked_api(const abi::ApiBase& base, const std::string& version) {
  const ort::Api api(table_of(base, version));
  check_table(api, version);
  return api;
}

}  // namespace

const Runtime& Runtime::attach(const abi::ApiBase& base) {
  Registry& known = registry();
  const std::lock_guard lock(known.mutex);
  for (const Runtime* runtime : known.runtimes) {
    if (runtime->base_ == &base) return *runtime;
  }
  try {
    known.runtimes.push_back(new Runtime(base));
  } catch (const std::exception& error) {
    known.last_error = error.what();
    throw;
  }
  return *known.runtimes.back();
}

const Runtime* Runtime::attached() {
  Registry& known = registry();
  const std::lock_guard lock(known.mutex);
  return known.runtimes.empty() ? nullptr : known.runtimes.front();
}

const Runtime& Runtime::for_engine() {
  const Runtime* runtime = attached();
  if (runtime == nullptr) {
    Registry& known = registry();
    const std::lock_guard lock(known.mutex);
    throw EngineError(known.last_error.empty()
                          ? "no onnxruntime is attached: register this library with "
                            "onnxruntime.SessionOptions().register_custom_ops_library first"
                          : known.last_error);
  }
  if (minor_version(runtime->version_) < engine_version) {
    throw EngineError("the native engine needs onnxruntime 1.23 or later; attached is " +
                      runtime->version_);
  }
  return *runtime;
}

Runtime::Runtime(const abi::ApiBase& base)
    : base_(&base),
      version_(base.GetVersionString()),
      api_(checked_api(base, version_)),
      operators_(plugin::all_operators(
          api_, minor_version(version_) < in_place_version ? table_version : in_place_version)),
      domain_(ort::make<ort::CustomOpDomain>(api_, abi::CreateCustomOpDomain, operator_domain)) {
  for (const CustomOperator& each : operators_) api_(abi::CustomOpDomain_Add, domain_.get(), &each);
}

const ort::Env& Runtime::env() const {
  std::call_once(env_once_, [this] {
    env_ = std::make_unique<ort::Env>(
        ort::make<ort::Env>(api_, abi::CreateEnv, abi::LoggingLevel::warning, "igonnx"));
  });
  return *env_;
}

void Runtime::add_operators(abi::SessionOptions* options) const {
  api_(abi::AddCustomOpDomain, options, domain_.get());
}

}  // namespace igonnx
