// plan.hpp: what is refused, and how it is said.
#include <string>
#include <vector>

#include "check.hpp"
#include "errors.hpp"
#include "plan.hpp"

using namespace igonnx;
using namespace igonnx::tests;
using enum abi::ElementType;

namespace {

// Two requests of shape [3], three rows; the arrays live as long as this.
struct Example {
  std::vector<float> values = std::vector<float>(6);
  std::vector<float> per_row = std::vector<float>(3);
  std::vector<std::int64_t> row{0, 0, 1};

  Plan plan() const {
    Plan result;
    const ArrayView image{values.data(), float32, {2, 3}};
    result.explained.push_back({"image", image, image});
    result.fixed.push_back({"mask", image, true});
    result.cotangent = image;
    result.row = {row.data(), int64, {static_cast<std::int64_t>(row.size())}};
    result.alpha = result.weight = {per_row.data(), float32, {3}};
    return result;
  }
};

std::string refusal(const Plan& plan) {
  return message_of<InputError>([&] { check(plan); });
}

}  // namespace

TEST(plan_sizes_of_views) {
  const Example example;
  const ArrayView image = example.plan().explained.front().x;
  CHECK_EQUAL(image.slice_size(), 3);
  CHECK_EQUAL(image.slice_bytes(), 12);
  CHECK_EQUAL(image.bytes(), 24);
  const ArrayView scalar{example.values.data(), float64, {}};
  CHECK_EQUAL(scalar.slice_size(), 1);
  CHECK_EQUAL(scalar.bytes(), 8);
  const ArrayView empty{nullptr, float32, {0, 4}};
  CHECK_EQUAL(empty.bytes(), 0);
  CHECK_EQUAL(empty.slice_bytes(), 16);
}

TEST(plan_that_fits_is_accepted) {
  Example example;
  check(example.plan());
  CHECK_EQUAL(example.plan().requests(), 2);
  CHECK_EQUAL(example.plan().rows(), 3);
}

TEST(plan_without_rows_is_accepted) {
  Example example;
  Plan plan = example.plan();
  plan.row.shape = plan.alpha.shape = plan.weight.shape = {0};
  check(plan);
}

TEST(plan_without_anything_to_explain) {
  Plan plan;
  CHECK_EQUAL(refusal(plan), "no tensor to explain was given");
}

TEST(plan_rows_of_unknown_requests) {
  Example example;
  example.row = {0, 1, 2};
  CHECK_EQUAL(refusal(example.plan()), "row[2] is 2; expected an index of one of the 2 requests");
  example.row = {-1, 0, 1};
  CHECK_EQUAL(refusal(example.plan()), "row[0] is -1; expected an index of one of the 2 requests");
}

TEST(plan_rows_out_of_order) {
  Example example;
  example.row = {0, 1, 0};
  CHECK_EQUAL(refusal(example.plan()),
              "row[2] is 0 after 1; expected rows in the order of their requests");
}

TEST(plan_of_another_dtype) {
  const Example example;
  Plan plan = example.plan();
  plan.explained.front().x.type = float16;
  CHECK_EQUAL(refusal(plan), "x of 'image' has dtype float16; expected float32 or float64");
  plan = example.plan();
  plan.alpha.type = float64;
  CHECK_EQUAL(refusal(plan), "alpha has dtype float64; expected float32 as x of 'image'");
}

TEST(plan_of_another_shape) {
  const Example example;
  Plan plan = example.plan();
  plan.explained.front().baseline.shape = {1, 3};
  CHECK_EQUAL(refusal(plan),
              "baseline of 'image' has shape [1, 3]; expected [2, 3] as x of 'image'");
  plan = example.plan();
  plan.fixed.front().array.shape = {3};
  CHECK_EQUAL(refusal(plan),
              "fixed input 'mask' has shape [3]; expected [2, ...], one slice per request");
  plan = example.plan();
  plan.weight.shape = {2};
  CHECK_EQUAL(refusal(plan), "weight has shape [2]; expected [3] as row");
}

TEST(plan_of_scores_needs_no_path) {
  const Example example;
  Plan plan = example.plan();
  plan.alpha = plan.weight = {};
  plan.gradients = false;
  plan.by_row.push_back({"keep", {example.values.data(), float32, {3, 2}}});
  check(plan);
  plan.by_row.front().array.shape = {2, 3};
  CHECK_EQUAL(refusal(plan), "input 'keep' has shape [2, 3]; expected [3, ...], one slice per row");
}

TEST(plan_shares_chunks_with_its_like) {
  const Example example;
  const auto with_keep = [&example](std::vector<std::int64_t> shape) {
    Plan plan = example.plan();
    plan.by_row.push_back({"keep", {example.values.data(), float32, shape}});
    return plan;
  };
  CHECK(can_share_chunk(with_keep({3, 2}), with_keep({5, 2})));
  CHECK(!can_share_chunk(with_keep({3, 2}), with_keep({3, 1})));
  CHECK(!can_share_chunk(with_keep({3, 2}), example.plan()));
  Plan scores = with_keep({3, 2});
  scores.gradients = false;
  CHECK(!can_share_chunk(with_keep({3, 2}), scores));
}

TEST(plan_of_no_rows_at_a_time) {
  const Example example;
  Plan plan = example.plan();
  plan.batch_size = 0;
  CHECK_EQUAL(refusal(plan), "batch_size is 0; expected at least 1");
}
