// quadrature.hpp: every rule integrates what it is exact for.
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>

#include "check.hpp"
#include "errors.hpp"
#include "quadrature.hpp"

using namespace igonnx;
using namespace igonnx::tests;

namespace {

constexpr Rule rules[] = {Rule::gauss_legendre, Rule::trapezoid, Rule::middle, Rule::left,
                          Rule::right};

// The rule's sum for alpha to the power of `degree`, beside its integral, 1 / (degree + 1).
double error(const Quadrature& points, int degree) {
  double sum = 0.0;
  for (std::size_t i = 0; i < points.alpha.size(); ++i) {
    sum += points.weight[i] * std::pow(points.alpha[i], degree);
  }
  return std::abs(sum - 1.0 / (degree + 1));
}

}  // namespace

TEST(quadrature_points_rise_and_weights_sum_to_one) {
  for (const Rule rule : rules) {
    for (const std::int64_t steps : {1, 2, 3, 10, 50, 51, 500}) {
      const Quadrature points = quadrature(rule, steps);
      CHECK_EQUAL(std::ssize(points.alpha), steps + (rule == Rule::trapezoid ? 1 : 0));
      CHECK_EQUAL(points.weight.size(), points.alpha.size());
      CHECK(error(points, 0) < 1e-14);
      CHECK(points.alpha.front() >= 0.0);
      CHECK(points.alpha.back() <= 1.0);
      for (std::size_t i = 1; i < points.alpha.size(); ++i) {
        CHECK(points.alpha[i] > points.alpha[i - 1]);
      }
    }
  }
}

TEST(quadrature_degrees_of_exactness) {
  for (const std::int64_t steps : {1, 2, 5, 8}) {
    for (int degree = 0; degree <= 2 * steps - 1; ++degree) {
      CHECK(error(quadrature(Rule::gauss_legendre, steps), degree) < 1e-15);
    }
    CHECK(error(quadrature(Rule::gauss_legendre, steps), static_cast<int>(2 * steps)) > 1e-11);
    CHECK(error(quadrature(Rule::trapezoid, steps), 1) < 1e-15);
    CHECK(error(quadrature(Rule::middle, steps), 1) < 1e-15);
  }
  CHECK(std::abs(error(quadrature(Rule::left, 4), 1) - 0.125) < 1e-15);
  CHECK(std::abs(error(quadrature(Rule::right, 4), 1) - 0.125) < 1e-15);
}

TEST(quadrature_with_the_ends_of_the_path) {
  const Quadrature gauss = with_ends(quadrature(Rule::gauss_legendre, 2));
  CHECK_EQUAL(gauss.alpha.size(), 4u);
  CHECK_EQUAL(gauss.alpha.front(), 0.0);
  CHECK_EQUAL(gauss.weight.front(), 0.0);
  CHECK_EQUAL(gauss.alpha.back(), 1.0);
  CHECK_EQUAL(gauss.weight.back(), 0.0);
  CHECK_EQUAL(with_ends(quadrature(Rule::trapezoid, 2)).alpha.size(), 3u);
  CHECK_EQUAL(with_ends(quadrature(Rule::left, 2)).alpha.size(), 3u);
  CHECK_EQUAL(with_ends(quadrature(Rule::right, 2)).weight.front(), 0.0);
}

TEST(quadrature_steps_that_are_refused) {
  const auto refusal = [](Rule rule, std::int64_t steps) {
    return message_of<InputError>([=] { quadrature(rule, steps); });
  };
  CHECK_EQUAL(refusal(Rule::middle, 0), "steps is 0; expected 1 to 10000000");
  CHECK_EQUAL(refusal(Rule::gauss_legendre, 5001), "steps is 5001; expected 1 to 5000");
}
