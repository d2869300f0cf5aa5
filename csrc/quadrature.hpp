// Where a path integral evaluates the gradient, and how much each value counts.
#pragma once

#include <cstdint>
#include <vector>

namespace igonnx {

enum class Rule { gauss_legendre, trapezoid, middle, left, right };

/// Points on [0, 1] in increasing order, and their weights.
struct Quadrature {
  std::vector<double> alpha;
  std::vector<double> weight;
};

/// The points of `rule` with `steps` steps, as igonnx/quadrature.py has them: Riemann sums over
/// equal intervals, the trapezoid rule with steps + 1 points, or Gauss-Legendre, which is exact for
/// polynomials of degree 2 steps - 1 (Abramowitz and Stegun, 25.4.29). Weights sum to 1. Throws
/// InputError for less than one step, or more than 5000 of Gauss-Legendre (1e7 of the others).
Quadrature quadrature(Rule rule, std::int64_t steps);

/// The same with both ends of the path, which get weight 0 where they are no points of the rule.
Quadrature with_ends(Quadrature points);

}  // namespace igonnx
