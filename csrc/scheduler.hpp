// Shares one session among the threads that call it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cancel_token.hpp"
#include "ort.hpp"
#include "plan.hpp"

namespace igonnx {

using Clock = std::chrono::steady_clock;

/// Rows of a call that has several parts.
struct Tally {
  std::atomic<std::int64_t> done;
  std::int64_t total;
};

/// What a call may ask for besides its plan. The functions are called by the calling thread, and
/// what they throw stops the call.
struct CallControl {
  std::optional<Clock::time_point> deadline;
  std::shared_ptr<CancelToken> cancel;                                  // or null
  std::function<void(std::int64_t done, std::int64_t total)> progress;  // after chunks; or empty
  std::function<void()> poll;  // some times a second while the call runs or waits; or empty
  std::uint64_t call = 0;      // parts of one call have the same number; 0: it is the only part
  Tally* tally = nullptr;      // of all parts of the call; or null
};

struct SchedulerConfig {
  std::string log_name;         // the model, in error messages
  std::size_t queue_limit = 0;  // calls served at a time, others wait in line; 0: no limit
  std::size_t runs_at_once = 1;
};

struct Counts {
  std::size_t calls = 0;          // begun and not ended
  std::uint64_t runs = 0;         // ended
  std::uint64_t shared_runs = 0;  // of these, with rows of several calls
  std::int64_t row_limit = 0;     // rows of a run, since memory ran out with twice as many; 0: any
};

/// Runs the plans of any number of calling threads on one session, chunk by chunk.
///
/// There are no threads of its own to run them: a calling thread leads. It picks the rows of a
/// chunk, runs them, hands out what was computed, and goes on until its own plan is done; the
/// others sleep, or lead at the same time, up to `runs_at_once`. A chunk begins with the call that
/// has waited longest for its turn and is filled up with rows of the next ones that can_share_chunk
/// with it. Calls take turns chunk by chunk, so a short one does not wait for a long one to end. A
/// run beside others is begun for a full chunk only: rows that do not fill one wait for company.
class Scheduler {
 public:
  Scheduler(const ort::Api& api, abi::Session* session, SchedulerConfig config);
  ~Scheduler();

  /// Runs a plan that check() has accepted. Its results depend on batch_size and on who else calls
  /// only by rounding. Throws EngineError if the runtime fails on a chunk of this plan alone,
  /// DeadlineError, CancelledError, or what a function of `control` throws; the memory of plan and
  /// results is then no longer used.
  void run(const Plan& plan, const Results& results, const CallControl& control);

  Counts counts() const;

  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

 private:
  enum class Stop { none, deadline, cancelled, abandoned };
  struct Job;
  struct Chunk;
  class Visit;
  using Lock = std::unique_lock<std::mutex>;

  // With the mutex held.
  void enter(Job& job);
  void leave(Lock& lock, Job& job) noexcept;
  void serve(Lock& lock, Job& job);
  bool lead(Lock& lock, Job& leader);
  bool call_out(Lock& lock, Job& job);
  void wait(Lock& lock, Job& job);
  void admit_next();
  void admit(std::list<Job*>::iterator place);
  bool has_company(const Job& job, const std::list<Job*>& jobs) const;
  std::size_t calls_served() const;
  void join_group(Job& job);
  bool fill(Chunk& chunk);
  void settle(Chunk& chunk, std::exception_ptr failure);
  void blame(Chunk& chunk, const std::exception_ptr& failure);
  void stop(Job& job, Stop reason);
  void end_if_abandoned(Chunk& chunk);
  void wake_a_leader();
  void watch_deadline(const Job& job);
  void throw_if_stopped(const Job& job) const;
  std::string rows_of(const Chunk& chunk) const;

  // Without it, but for the moments when a merged chunk takes and hands back its parts.
  void execute(Chunk& chunk);
  void execute_merged(Chunk& chunk);
  void watch();

  const ort::Api api_;
  abi::Session* const session_;
  const SchedulerConfig config_;

  mutable std::mutex mutex_;
  std::list<Job*> queue_;  // admitted; whose turn is next is in front
  std::list<Job*> line_;   // waiting to be admitted
  std::list<Chunk*> running_;
  Counts counts_;
  std::uint64_t last_group_ = 0;

  // Deadlines are watched by a thread that is started with the first of them.
  std::thread watchman_;
  std::condition_variable watchman_wakes_;
  Clock::time_point next_look_ = Clock::time_point::max();
  bool closing_ = false;
};

}  // namespace igonnx
