#include "quadrature.hpp"

#include <cmath>
#include <cstddef>
#include <numbers>
#include <numeric>
#include <string>

#include "errors.hpp"

namespace igonnx {

namespace {

constexpr std::int64_t most_gauss_steps = 5000;
constexpr std::int64_t most_steps = 10'000'000;

// The Legendre polynomial of degree n at z, and its derivative there (z inside of -1..1).
struct Legendre {
  double value;
  double slope;
};

Legendre legendre(std::int64_t n, double z) {
  double before = 0.0;
  double value = 1.0;
  for (std::int64_t k = 1; k <= n; ++k) {
    const double next =
        (static_cast<double>(2 * k - 1) * z * value - static_cast<double>(k - 1) * before) /
        static_cast<double>(k);
    before = value;
    value = next;
  }
  return {value, static_cast<double>(n) * (z * value - before) / (z * z - 1.0)};
}

// Roots by Newton's method, from the estimate of Abramowitz and Stegun, 22.16.6; weights
// by 25.4.29. Roots lie symmetrically about 0.
Quadrature gauss_legendre(std::int64_t steps) {
  const auto count = static_cast<std::size_t>(steps);
  Quadrature points{std::vector<double>(count), std::vector<double>(count)};
  for (std::size_t i = 0; i < (count + 1) / 2; ++i) {
    double z = std::cos(std::numbers::pi * (static_cast<double>(i) + 0.75) /
                        (static_cast<double>(steps) + 0.5));
    if (2 * i + 1 == count) z = 0.0;
    constexpr int most_rounds = 20;
    for (int round = 0; round < most_rounds; ++round) {
      const auto [value, slope] = legendre(steps, z);
      const double change = value / slope;
      z -= change;
      if (std::abs(change) < 1e-15) break;
    }
    const double slope = legendre(steps, z).slope;
    const double weight = 1.0 / ((1.0 - z * z) * slope * slope);
    points.alpha[i] = (1.0 - z) / 2.0;
    points.alpha[count - 1 - i] = (1.0 + z) / 2.0;
    points.weight[i] = points.weight[count - 1 - i] = weight;
  }
  const double sum = std::accumulate(points.weight.begin(), points.weight.end(), 0.0);
  for (double& weight : points.weight) weight /= sum;
  return points;
}

// Equal intervals with one point each, so far behind its start.
Quadrature riemann(std::int64_t steps, double offset) {
  Quadrature points;
  for (std::int64_t i = 0; i < steps; ++i) {
    points.alpha.push_back((static_cast<double>(i) + offset) / static_cast<double>(steps));
    points.weight.push_back(1.0 / static_cast<double>(steps));
  }
  return points;
}

Quadrature trapezoid(std::int64_t steps) {
  Quadrature points = riemann(steps, 0.0);
  points.alpha.push_back(1.0);
  points.weight.front() /= 2.0;
  points.weight.push_back(points.weight.front());
  return points;
}

}  // namespace

Quadrature quadrature(Rule rule, std::int64_t steps) {
  const std::int64_t most = rule == Rule::gauss_legendre ? most_gauss_steps : most_steps;
  if (steps < 1 || steps > most) {
    throw InputError("steps is " + std::to_string(steps) + "; expected 1 to " +
                     std::to_string(most));
  }
  switch (rule) {
    case Rule::trapezoid:
      return trapezoid(steps);
    case Rule::middle:
      return riemann(steps, 0.5);
    case Rule::left:
      return riemann(steps, 0.0);
    case Rule::right:
      return riemann(steps, 1.0);
    case Rule::gauss_legendre:
      break;
  }
  return gauss_legendre(steps);
}

Quadrature with_ends(Quadrature points) {
  if (points.alpha.front() > 0.0) {
    points.alpha.insert(points.alpha.begin(), 0.0);
    points.weight.insert(points.weight.begin(), 0.0);
  }
  if (points.alpha.back() < 1.0) {
    points.alpha.push_back(1.0);
    points.weight.push_back(0.0);
  }
  return points;
}

}  // namespace igonnx
