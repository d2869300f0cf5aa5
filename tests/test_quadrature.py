"""Nodes and weights: sums, positions, exactness, errors."""

import math

import numpy as np
import pytest

import igonnx
from igonnx.quadrature import RULES, nodes_and_weights, trapezoid_weights


@pytest.mark.parametrize("rule", RULES)
def test_weights_sum_to_one_for_every_number_of_steps(rule: str) -> None:
    for steps in range(1, 201):
        alpha, weight = nodes_and_weights(rule, steps)
        assert alpha.dtype == weight.dtype == np.float64
        assert abs(math.fsum(weight) - 1) < 1e-14, steps
        assert (weight > 0).all()
        assert (np.diff(alpha) > 0).all()
        assert alpha[0] >= 0
        assert alpha[-1] <= 1


@pytest.mark.parametrize("rule", RULES)
def test_number_of_nodes(rule: str) -> None:
    for steps in (1, 2, 7, 50):
        alpha, weight = nodes_and_weights(rule, steps)
        assert len(alpha) == len(weight) == steps + (rule == "trapezoid")


def test_first_nodes_of_each_rule() -> None:
    assert nodes_and_weights("left", 4)[0].tolist() == [0, 0.25, 0.5, 0.75]
    assert nodes_and_weights("right", 4)[0].tolist() == [0.25, 0.5, 0.75, 1]
    assert nodes_and_weights("middle", 4)[0].tolist() == [0.125, 0.375, 0.625, 0.875]
    alpha, weight = nodes_and_weights("trapezoid", 4)
    assert alpha.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert weight.tolist() == [0.125, 0.25, 0.25, 0.25, 0.125]
    alpha, weight = nodes_and_weights("gauss_legendre", 2)
    np.testing.assert_allclose(
        alpha, [0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12)], rtol=1e-15
    )
    np.testing.assert_allclose(weight, [0.5, 0.5], rtol=1e-15)


def _integral(rule: str, steps: int, degree: int) -> float:
    alpha, weight = nodes_and_weights(rule, steps)
    return float(weight @ alpha**degree)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 20])
def test_gauss_legendre_is_exact_up_to_degree_2n_minus_1(steps: int) -> None:
    for degree in range(2 * steps):
        assert _integral("gauss_legendre", steps, degree) == pytest.approx(
            1 / (degree + 1), rel=1e-13
        )
    if steps < 10:  # the error at degree 2n sinks below rounding
        assert abs(_integral("gauss_legendre", steps, 2 * steps) * (2 * steps + 1) - 1) > 1e-9


@pytest.mark.parametrize(
    ("rule", "degree"), [("left", 0), ("right", 0), ("middle", 1), ("trapezoid", 1)]
)
@pytest.mark.parametrize("steps", [1, 3, 16])
def test_degree_of_the_equal_rules(rule: str, degree: int, steps: int) -> None:
    for exact in range(degree + 1):
        assert _integral(rule, steps, exact) == pytest.approx(1 / (exact + 1), rel=1e-13)
    assert abs(_integral(rule, steps, degree + 1) * (degree + 2) - 1) > 1e-4


@pytest.mark.parametrize(
    ("rule", "order"), [("left", 1), ("right", 1), ("middle", 2), ("trapezoid", 2)]
)
def test_order_of_convergence(rule: str, order: int) -> None:
    def error(steps: int) -> float:
        alpha, weight = nodes_and_weights(rule, steps)
        return abs(float(weight @ np.exp(alpha)) - (math.e - 1))

    assert math.log2(error(40) / error(80)) == pytest.approx(order, abs=0.05)


def test_trapezoid_weights_on_an_uneven_mesh() -> None:
    alpha = np.array([0.0, 0.1, 0.4, 1.0])
    weight = trapezoid_weights(alpha)
    np.testing.assert_allclose(weight, [0.05, 0.2, 0.45, 0.3])
    assert weight @ alpha == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [0, -3, 2.0, 1.5, True, None, "50", np.float64(3)])
def test_steps_must_be_a_whole_number(steps: object) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        nodes_and_weights("middle", steps)  # type: ignore[arg-type]
    assert str(caught.value) == f"steps is {steps!r}; expected a whole number of at least 1"


def test_numpy_integers_are_whole_numbers() -> None:
    assert len(nodes_and_weights("left", np.int32(3))[0]) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["simpson", "", None, 3, ["left"]])
def test_unknown_rule(rule: object) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        nodes_and_weights(rule, 3)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"unknown rule {rule!r}; expected one of left, right, middle, trapezoid, gauss_legendre"
    )
