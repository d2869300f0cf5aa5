// Several runs at once for one call.
#pragma once

#include <cstddef>

#include "plan.hpp"
#include "scheduler.hpp"

namespace igonnx {

/// Runs a plan that check() has accepted in up to `lanes` parts at the same time, each with rows of
/// its own: rows in parallel, on one thread each, share less and wait less than threads in parallel
/// within each operator of a row. The parts are settled by the plan alone, so the result is the
/// same in every run; it depends on `lanes` only by rounding. Throws what Scheduler::run throws,
/// for the call as a whole.
void run_in_lanes(Scheduler& scheduler, const Plan& plan, const Results& results,
                  const CallControl& control, std::size_t lanes);

}  // namespace igonnx
