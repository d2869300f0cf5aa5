#include "lanes.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "errors.hpp"
#include "kernels/accumulate.hpp"

namespace igonnx {

namespace {

constexpr auto look_interval = std::chrono::milliseconds(20);

std::atomic<std::uint64_t> last_call{0};

// Where the lanes begin, and the end of the last one. With many requests the cuts lie between
// requests, so that no two lanes add to the same gradient.
std::vector<std::int64_t> cuts(const Plan& plan, std::int64_t lanes, bool between_requests) {
  const std::int64_t* const row = plan.row_data();
  const std::int64_t rows = plan.rows();
  std::vector<std::int64_t> found{0};
  for (std::int64_t lane = 1; lane < lanes; ++lane) {
    std::int64_t cut = rows * lane / lanes;
    if (between_requests) cut = std::lower_bound(row, row + rows, row[cut]) - row;
    if (cut > found.back()) found.push_back(cut);
  }
  found.push_back(rows);
  return found;
}

// One part of the plan, and where its results go.
struct Lane {
  std::int64_t first_request = 0;  // of the whole plan
  std::vector<std::int64_t> row;   // requests of its rows, counted from there
  Plan plan;
  Results results;
  std::vector<std::vector<double>> sums;  // its own gradients, where other lanes add to the same
  std::exception_ptr failure;
  std::thread thread;
};

class Call {
 public:
  Call(Scheduler& scheduler, const Plan& plan, const Results& results, const CallControl& control,
       std::int64_t lanes)
      : scheduler_(scheduler), results_(results), control_(control), tally_{0, plan.rows()} {
    const bool between_requests = plan.requests() >= 2 * lanes;
    const std::vector<std::int64_t> bounds = cuts(plan, lanes, between_requests);
    lanes_.resize(bounds.size() - 1);
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      take_rows(lanes_[i], plan, bounds[i], bounds[i + 1], i > 0 && !between_requests);
    }
  }

  void run() {
    std::optional<CancelToken::Subscription> subscription;
    if (control_.cancel != nullptr) subscription.emplace(*control_.cancel, [this] { halt(); });
    const CallControl own = leader_control();
    start_others();
    run_lane(lanes_.front(), own);
    try {
      look_after_others();
    } catch (...) {
      lanes_.front().failure = std::current_exception();
      halt();
    }
    for (Lane& lane : lanes_) {
      if (lane.thread.joinable()) lane.thread.join();
    }
    throw_first_failure();
    for (const Lane& lane : lanes_) {
      for (std::size_t k = 0; k < lane.sums.size(); ++k) {
        const std::int64_t slice = lane.plan.explained[k].x.slice_size();
        kernels::accumulate(lane.sums[k].data(),
                            results_.weighted_gradient[k] + lane.first_request * slice,
                            lane.sums[k].size());
      }
    }
    report();
  }

 private:
  // Gives `lane` the rows first..end - 1 and the requests that they touch.
  void take_rows(Lane& lane, const Plan& plan, std::int64_t first, std::int64_t end,
                 bool sums_of_its_own) {
    const std::int64_t begin = plan.row_data()[first];
    const std::int64_t past = plan.row_data()[end - 1] + 1;
    lane.first_request = begin;
    for (std::int64_t row = first; row < end; ++row) {
      lane.row.push_back(plan.row_data()[row] - begin);
    }
    lane.plan = plan;
    lane.plan.row = {lane.row.data(), plan.row.type, {end - first}};
    if (plan.gradients) {
      lane.plan.alpha = plan.alpha.part(first, end);
      lane.plan.weight = plan.weight.part(first, end);
    }
    for (RowInput& input : lane.plan.by_row) input.array = input.array.part(first, end);
    lane.plan.cotangent = plan.cotangent.part(begin, past);
    lane.plan.first_row = plan.first_row + first;
    for (FixedInput& input : lane.plan.fixed) {
      if (input.batched) input.array = input.array.part(begin, past);
    }
    lane.results.score = results_.score + first;
    if (plan.gradients) {
      lane.results.weighted_gradient = results_.weighted_gradient;
      lane.results.slope = results_.slope + first;
    }
    for (std::size_t k = 0; k < plan.explained.size(); ++k) {
      ExplainedInput& input = lane.plan.explained[k];
      const std::int64_t slice = input.x.slice_size();
      input.x = input.x.part(begin, past);
      input.baseline = input.baseline.part(begin, past);
      if (!plan.gradients) continue;
      lane.results.weighted_gradient[k] += begin * slice;
      if (!sums_of_its_own) continue;
      lane.sums.emplace_back(static_cast<std::size_t>(slice * (past - begin)));
      lane.results.weighted_gradient[k] = lane.sums.back().data();
    }
  }

  CallControl lane_control() {
    CallControl control;
    control.deadline = control_.deadline;
    control.cancel = token_;
    control.call = call_;
    control.tally = &tally_;
    return control;
  }

  // Python's functions are for the calling thread alone.
  CallControl leader_control() {
    CallControl control = lane_control();
    control.poll = control_.poll;
    if (control_.progress) control.progress = [this](std::int64_t, std::int64_t) { report(); };
    return control;
  }

  void start_others() {
    running_ = lanes_.size() - 1;
    try {
      for (std::size_t i = 1; i < lanes_.size(); ++i) {
        lanes_[i].thread = std::thread([this, i] { run_other(lanes_[i]); });
      }
    } catch (const std::exception&) {
      // No more threads: what is left runs on this one.
      for (std::size_t i = 1; i < lanes_.size(); ++i) {
        if (!lanes_[i].thread.joinable()) run_other(lanes_[i]);
      }
    }
  }

  void run_other(Lane& lane) {
    run_lane(lane, lane_control());
    const std::lock_guard lock(mutex_);
    --running_;
    ended_.notify_one();
  }

  void run_lane(Lane& lane, const CallControl& control) {
    try {
      scheduler_.run(lane.plan, lane.results, control);
    } catch (...) {
      lane.failure = std::current_exception();
      halt();
    }
  }

  void look_after_others() {
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, look_interval, [this] { return running_ == 0; })) {
      lock.unlock();
      if (control_.poll) control_.poll();
      report();
      lock.lock();
    }
  }

  void report() {
    const std::int64_t done = tally_.done;
    if (!control_.progress || done == reported_) return;
    reported_ = done;
    control_.progress(done, tally_.total);
  }

  void halt() { token_->cancel(); }

  // Lanes that were halted for the failure of another say that they were cancelled.
  void throw_first_failure() const {
    std::exception_ptr first;
    for (const Lane& lane : lanes_) {
      if (!lane.failure) continue;
      if (!first) first = lane.failure;
      try {
        std::rethrow_exception(lane.failure);
      } catch (const CancelledError&) {
        continue;
      }
    }
    if (first) std::rethrow_exception(first);
  }

  Scheduler& scheduler_;
  const Results& results_;
  const CallControl& control_;
  const std::uint64_t call_ = ++last_call;
  Tally tally_;
  std::shared_ptr<CancelToken> token_ = std::make_shared<CancelToken>();
  std::vector<Lane> lanes_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::size_t running_ = 0;  // lanes beside the first
  std::int64_t reported_ = 0;
};

}  // namespace

void run_in_lanes(Scheduler& scheduler, const Plan& plan, const Results& results,
                  const CallControl& control, std::size_t lanes) {
  const std::int64_t chunks = (plan.rows() - 1) / plan.batch_size + 1;
  const std::int64_t most = std::min(static_cast<std::int64_t>(lanes), chunks);
  if (most <= 1) {
    scheduler.run(plan, results, control);
  } else {
    Call(scheduler, plan, results, control, most).run();
  }
}

}  // namespace igonnx
