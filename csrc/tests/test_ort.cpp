// ort.hpp: statuses become exceptions, and every object is released once.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "fake_runtime.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

ort::MemoryInfo cpu_memory(const ort::Api& api) {
  return ort::make<ort::MemoryInfo>(api, abi::CreateCpuMemoryInfo, abi::AllocatorType::device,
                                    abi::MemoryType::standard);
}

// An entry that always refuses, in a table of its own.
abi::Status* refusal_of_a_run() {
  return FakeRuntime::api().status_of(abi::CreateStatus, abi::ErrorCode::fail,
                                      "first line\r\n second line\n");
}

}  // namespace

TEST(ort_a_handle_releases_its_object_once) {
  const ort::Api api = FakeRuntime::api();
  const int before = FakeRuntime::live_objects();
  {
    ort::MemoryInfo first = cpu_memory(api);
    const ort::MemoryInfo second = cpu_memory(api);
    CHECK_EQUAL(FakeRuntime::live_objects(), before + 2);
    const ort::MemoryInfo moved = std::move(first);
    CHECK(first.get() == nullptr);
    CHECK(moved.get() != nullptr);
    CHECK_EQUAL(FakeRuntime::live_objects(), before + 2);
  }
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}

TEST(ort_a_handle_assigned_to_releases_what_it_had) {
  const ort::Api api = FakeRuntime::api();
  const int before = FakeRuntime::live_objects();
  {
    std::optional<ort::MemoryInfo> memory(cpu_memory(api));
    memory = cpu_memory(api);
    CHECK_EQUAL(FakeRuntime::live_objects(), before + 1);
  }
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}

TEST(ort_a_status_becomes_an_exception_of_one_line_and_is_released) {
  const int before = FakeRuntime::live_objects();
  std::vector<abi::Function> table(300, nullptr);
  const auto put = [&table]<std::size_t slot, typename Signature>(abi::Entry<slot, Signature>,
                                                                  auto* function) {
    table[slot] = reinterpret_cast<abi::Function>(static_cast<Signature*>(function));
  };
  put(
      abi::GetErrorCode,
      +[](const abi::Status* status) { return FakeRuntime::api()(abi::GetErrorCode, status); });
  put(
      abi::GetErrorMessage,
      +[](const abi::Status* status) { return FakeRuntime::api()(abi::GetErrorMessage, status); });
  put(
      abi::ReleaseStatus,
      +[](abi::Status* status) { FakeRuntime::api()(abi::ReleaseStatus, status); });
  put(
      abi::RunWithBinding, +[](abi::Session*, const abi::RunOptions*, const abi::IoBinding*) {
        return refusal_of_a_run();
      });
  const ort::Api api(table.data());
  try {
    api(abi::RunWithBinding, nullptr, nullptr, nullptr);
    throw Failure("nothing was thrown");
  } catch (const ort::StatusError& error) {
    CHECK(error.code() == abi::ErrorCode::fail);
    CHECK_EQUAL(std::string(error.what()), "first line   second line");
  }
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}

TEST(ort_a_status_that_is_asked_for_is_the_callers) {
  const ort::Api api = FakeRuntime::api();
  const int before = FakeRuntime::live_objects();
  abi::Status* status = api.status_of(abi::CreateStatus, abi::ErrorCode::invalid_argument, "no");
  CHECK_EQUAL(FakeRuntime::live_objects(), before + 1);
  CHECK_EQUAL(std::string(api(abi::GetErrorMessage, status)), "no");
  api(abi::ReleaseStatus, status);
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}

TEST(ort_a_tensor_over_memory_has_its_shape_and_its_data) {
  const ort::Api api = FakeRuntime::api();
  const int before = FakeRuntime::live_objects();
  {
    std::vector<float> data(6);
    const ort::MemoryInfo memory = cpu_memory(api);
    const ort::Value tensor =
        ort::tensor_over(api, memory, data.data(), 24, {2, 3}, abi::ElementType::float32);
    const auto info = ort::make<ort::TensorInfo>(api, abi::GetTensorTypeAndShape, tensor.get());
    CHECK(ort::shape_of(api, info.get()) == (std::vector<std::int64_t>{2, 3}));
    CHECK(ort::get<void*>(api, abi::GetTensorMutableData, tensor.get()) == data.data());
  }
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}
