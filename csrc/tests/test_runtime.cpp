// runtime.hpp and the operators it registers, in the stand-in: many threads at once.
#include <algorithm>
#include <thread>
#include <vector>

#include "check.hpp"
#include "errors.hpp"
#include "fake_runtime.hpp"
#include "runtime.hpp"

using namespace igonnx;
using namespace igonnx::tests;

TEST(runtime_is_kept_once_whoever_attaches_it) {
  std::vector<const Runtime*> found(8, nullptr);
  std::vector<std::thread> threads;
  for (const Runtime*& each : found) {
    threads.emplace_back([&each] { each = &Runtime::attach(FakeRuntime::base()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Runtime* each : found) CHECK(each == found.front());
  CHECK_EQUAL(found.front()->version(), "1.23.0");
  CHECK(&Runtime::for_engine() == found.front());
}

TEST(runtime_without_the_table_is_refused) {
  static const abi::ApiBase old{+[](std::uint32_t) -> abi::Table* { return nullptr; },
                                +[] { return "1.16.3"; }};
  CHECK_EQUAL(message_of<EngineError>([] { Runtime::attach(old); }),
              "onnxruntime 1.16.3 is too old: igonnx needs 1.17 or later");
}

TEST(operator_activation_mask_in_several_threads_at_once) {
  Runtime::attach(FakeRuntime::base());
  const abi::CustomOp& op =
      FakeRuntime::operator_named("ActivationMask", abi::ElementType::float32);
  const FakeNode node(op, {.numbers = {{"upper", 6.0f}}});
  const int before = FakeRuntime::live_objects();
  const auto run_many = [&node](std::int64_t length) {
    FakeTensor gradient(abi::ElementType::float32, {length});
    FakeTensor output(abi::ElementType::float32, {length});
    for (std::int64_t i = 0; i < length; ++i) {
      gradient.data<float>()[i] = static_cast<float>(i);
      output.data<float>()[i] = static_cast<float>(i % 9 - 1);
    }
    const auto result = std::move(node.run({&gradient, &output}).front());
    for (std::int64_t i = 0; i < length; ++i) {
      const bool passes = i % 9 > 1 && i % 9 < 7;
      CHECK_EQUAL(result->data<float>()[i], passes ? static_cast<float>(i) : 0.0f);
    }
  };
  std::vector<std::string> failures(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < failures.size(); ++t) {
    threads.emplace_back([&, t] {
      try {
        for (std::int64_t length : {0, 1, 7, 16383, 16384, 16385, 70001}) run_many(length);
      } catch (const std::exception& error) {
        failures[t] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) CHECK_EQUAL(failure, "");
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}

TEST(operator_activation_mask_refuses_other_shapes) {
  Runtime::attach(FakeRuntime::base());
  const FakeNode node(FakeRuntime::operator_named("ActivationMask", abi::ElementType::float64));
  const int before = FakeRuntime::live_objects();
  FakeTensor gradient(abi::ElementType::float64, {2, 3});
  FakeTensor output(abi::ElementType::float64, {3, 2});
  CHECK_EQUAL(message_of<ort::StatusError>([&] { node.run({&gradient, &output}); }),
              "ActivationMask: gradient and output differ in shape");
  CHECK_EQUAL(FakeRuntime::live_objects(), before);
}
