// question.hpp: from arrays to a plan. What is refused is tested through the C API.
#include <string>
#include <vector>

#include "check.hpp"
#include "errors.hpp"
#include "question.hpp"

using namespace igonnx;
using namespace igonnx::tests;
using enum abi::ElementType;

namespace {

// Two examples of shape [2, 3], beside a number for each and one for both.
struct Example {
  Interface interface{"model",
                      {{"image", "x:image", float32, {-1, 2, 3}, Role::explained},
                       {"scale", "fixed:scale", float32, {-1}, Role::per_example},
                       {"gate", "fixed:gate", float32, {}, Role::shared}},
                      {"", "cotangent", float32, {-1, 2, 2}, Role::output},
                      float32,
                      std::nullopt};
  std::vector<float> values = std::vector<float>(12, 1.0f);
  Question question = make_question();

  Question make_question() const {
    Question result;
    result.inputs = {{"gate", {values.data(), float32, {}}},
                     {"image", {values.data(), float32, {2, 2, 3}}},
                     {"scale", {values.data(), float32, {2}}}};
    result.target = {3, 0};
    result.rule = Rule::middle;
    result.steps = 2;
    return result;
  }

  std::vector<float> baseline(const std::vector<float>& given, std::vector<std::int64_t> shape) {
    question.baselines = {{"", {given.data(), float32, std::move(shape)}}};
    const PathPlan<float> path(interface, question, 0);
    const auto* data = static_cast<const float*>(path.plan().explained[0].baseline.data);
    return {data, data + 12};
  }
};

template <typename T>
std::vector<T> elements(const ArrayView& array) {
  const auto* data = static_cast<const T*>(array.data);
  return {data, data + array.bytes() / static_cast<std::int64_t>(sizeof(T))};
}

}  // namespace

TEST(question_becomes_a_plan) {
  Example example;
  const PathPlan<float> path(example.interface, example.question, 0);
  const Plan& plan = path.plan();
  check(plan);
  CHECK(elements<std::int64_t>(plan.row) == (std::vector<std::int64_t>{0, 0, 0, 0, 1, 1, 1, 1}));
  CHECK(elements<float>(plan.alpha) ==
        (std::vector<float>{0, 0.25f, 0.75f, 1, 0, 0.25f, 0.75f, 1}));
  CHECK(elements<float>(plan.weight) == (std::vector<float>{0, 0.5f, 0.5f, 0, 0, 0.5f, 0.5f, 0}));
  CHECK(elements<float>(plan.cotangent) == (std::vector<float>{0, 0, 0, 1, 1, 0, 0, 0}));
  CHECK(elements<float>(plan.explained.at(0).baseline) == std::vector<float>(12, 0.0f));
  CHECK_EQUAL(plan.fixed.at(0).name, "fixed:scale");
  CHECK(plan.fixed.at(0).batched);
  CHECK(!plan.fixed.at(1).batched);
  CHECK_EQUAL(plan.batch_size, 64);
  CHECK(!plan.pad);
}

TEST(question_baselines_broadcast) {
  Example example;
  CHECK(example.baseline({7}, {}) == std::vector<float>(12, 7.0f));
  CHECK(example.baseline({1, 2, 3}, {3}) ==
        (std::vector<float>{1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}));
  CHECK(example.baseline({1, 2}, {2, 1}) ==
        (std::vector<float>{1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2}));
  CHECK(example.baseline({1, 2}, {2, 1, 1}) ==
        (std::vector<float>{1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2}));
  const std::vector<float> whole{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  CHECK(example.baseline(whole, {2, 2, 3}) == whole);
}

TEST(question_rows_that_are_left_out) {
  Example example;
  PathPlan<float> path(example.interface, example.question, 5);
  CHECK_EQUAL(path.plan().batch_size, 5);
  path.keep({false, true, true, true, false, true, true, false});
  CHECK(elements<std::int64_t>(path.plan().row) == (std::vector<std::int64_t>{0, 0, 0, 1, 1}));
  CHECK(elements<float>(path.plan().alpha) == (std::vector<float>{0.25f, 0.75f, 1, 0.25f, 0.75f}));
  check(path.plan());
}

TEST(question_for_a_model_of_four_rows) {
  Example example;
  example.interface.fixed_rows = 4;
  const PathPlan<float> path(example.interface, example.question, 1);
  CHECK_EQUAL(path.plan().batch_size, 4);
  CHECK(path.plan().pad);
}

TEST(question_about_an_output_of_any_size) {
  Example example;
  example.interface.output.shape = {-1, -1, 2};
  CHECK_EQUAL(
      message_of<InputError>([&] { PathPlan<float>(example.interface, example.question, 0); }),
      "a target cannot be found in an output of shape [?, ?, 2]: give a cotangent of the "
      "shape that it has for these inputs");
  example.question.cotangent = ArrayView{example.values.data(), float32, {2, 3, 2}};
  example.question.target.clear();
  CHECK_EQUAL(PathPlan<float>(example.interface, example.question, 0).plan().cotangent.bytes(), 48);
}
