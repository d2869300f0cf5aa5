#include "scheduler.hpp"

#include <algorithm>
#include <exception>
#include <string_view>
#include <system_error>
#include <utility>

#include "chunk_runner.hpp"
#include "errors.hpp"
#include "merged_chunk.hpp"

namespace igonnx {

namespace {

constexpr auto poll_interval = std::chrono::milliseconds(50);

// The runtime has no code for it: its arena, its allocators and CUDA each have words of their own.
bool is_out_of_memory(std::string_view message) {
  for (const std::string_view words :
       {"Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory",
        "Available memory of", "OUT_OF_MEMORY", "ALLOC_FAILED"}) {
    if (message.find(words) != message.npos) return true;
  }
  return false;
}

std::string message_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

// One call. It lives on the stack of its thread.
struct Scheduler::Job {
  Job(const Plan& the_plan, const Results& the_results, const CallControl& the_control)
      : plan(the_plan), results(the_results), control(the_control) {}

  const Plan& plan;
  const Results& results;
  const CallControl& control;

  std::int64_t done = 0;      // rows whose results are stored
  std::int64_t reported = 0;  // rows told to control.progress
  Clock::time_point next_poll = Clock::now() + poll_interval;
  std::uint64_t group = 0;  // jobs of one group can share chunks; 0: not admitted
  bool alone = false;       // after a chunk with others has failed
  bool in_chunk = false;    // rows of it are running
  int pins = 0;             // leaders that are reading the plan or writing results
  Stop stopped = Stop::none;
  std::exception_ptr failure;
  std::unique_ptr<ChunkRunner> runner;     // for chunks that are all its own
  std::optional<ort::RunOptions> options;  // for chunks that it leads
  bool waiting = false;
  std::condition_variable wake;

  bool over() const { return stopped != Stop::none || failure != nullptr || done == plan.rows(); }
  bool runnable() const { return group != 0 && !in_chunk && !over(); }
  bool has_news() const { return control.progress && done > reported; }
  std::int64_t rows_done() const { return control.tally ? control.tally->done.load() : done; }
  std::int64_t rows_in_all() const { return control.tally ? control.tally->total : plan.rows(); }
};

// Rows that run together. It lives on the stack of the leader.
struct Scheduler::Chunk {
  struct Part {
    Job* job;  // null: has left, its results are not wanted any more
    std::int64_t first;
    std::int64_t end;
  };

  std::vector<Part> parts;
  std::int64_t rows = 0;
  bool full = false;
  bool padded = false;  // runs with the same number of rows however many are wanted
  bool terminated = false;
  abi::RunOptions* options = nullptr;
};

// Has a job enter, and leave however its call ends.
class Scheduler::Visit {
 public:
  Visit(Scheduler& scheduler, Lock& lock, Job& job)
      : scheduler_(scheduler), lock_(lock), job_(job) {
    scheduler_.enter(job_);
  }
  ~Visit() {
    if (!lock_.owns_lock()) lock_.lock();
    scheduler_.leave(lock_, job_);
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  Scheduler& scheduler_;
  Lock& lock_;
  Job& job_;
};

Scheduler::Scheduler(const ort::Api& api, abi::Session* session, SchedulerConfig config)
    : api_(api), session_(session), config_(std::move(config)) {}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  watchman_wakes_.notify_all();
  if (watchman_.joinable()) watchman_.join();
}

Counts Scheduler::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void Scheduler::run(const Plan& plan, const Results& results, const CallControl& control) {
  if (plan.rows() == 0) return;
  Job job(plan, results, control);
  // Outlives the visit, since it is taken and given back without the mutex: the token holds its own
  // while it calls. Before the visit and after it, stop() has nothing to do but to mark the job.
  std::optional<CancelToken::Subscription> subscription;
  if (control.cancel != nullptr) {
    subscription.emplace(*control.cancel, [this, &job] {
      const std::lock_guard locked(mutex_);
      stop(job, Stop::cancelled);
    });
  }
  Lock lock(mutex_);
  const Visit visit(*this, lock, job);
  serve(lock, job);
}

// -- a job's way ---------------------------------------------------------------------------------

void Scheduler::enter(Job& job) {
  if (job.control.deadline) watch_deadline(job);
  if (!has_company(job, line_) && !has_company(job, queue_)) ++counts_.calls;
  const auto place = line_.insert(line_.end(), &job);
  if (has_company(job, queue_)) admit(place);
  admit_next();
  if (job.control.deadline && *job.control.deadline <= Clock::now()) stop(job, Stop::deadline);
}

// Waits until no leader touches its memory. Rows in a run of its own are ended early.
void Scheduler::leave(Lock& lock, Job& job) noexcept {
  if (!job.over()) stop(job, Stop::abandoned);
  job.waiting = false;
  while (job.pins > 0) job.wake.wait(lock);
  for (Chunk* chunk : running_) {
    for (Chunk::Part& part : chunk->parts) {
      if (part.job == &job) part.job = nullptr;
    }
  }
  (job.group == 0 ? line_ : queue_).remove(&job);
  if (!has_company(job, line_) && !has_company(job, queue_)) --counts_.calls;
  admit_next();
  wake_a_leader();
}

void Scheduler::serve(Lock& lock, Job& job) {
  for (;;) {
    if (job.failure) std::rethrow_exception(job.failure);
    throw_if_stopped(job);
    if (call_out(lock, job)) continue;
    if (job.done == job.plan.rows()) return;
    if (!lead(lock, job)) wait(lock, job);
  }
}

// Calls the functions that are due, without the mutex. Returns whether there were any.
bool Scheduler::call_out(Lock& lock, Job& job) {
  const bool news = job.has_news();
  const bool poll = job.control.poll && Clock::now() >= job.next_poll;
  if (!news && !poll) return false;
  wake_a_leader();
  const std::int64_t done = job.done;
  job.reported = done;
  lock.unlock();
  if (poll) job.control.poll();
  if (news) job.control.progress(done, job.plan.rows());
  lock.lock();
  job.next_poll = Clock::now() + poll_interval;
  return true;
}

void Scheduler::wait(Lock& lock, Job& job) {
  job.waiting = true;
  if (job.control.poll) {
    job.wake.wait_until(lock, job.next_poll);
  } else {
    job.wake.wait(lock);
  }
  job.waiting = false;
}

void Scheduler::admit_next() {
  while (!line_.empty() && (config_.queue_limit == 0 || calls_served() < config_.queue_limit)) {
    admit(line_.begin());
  }
}

// From the line to the queue, with the other parts of the call that wait.
void Scheduler::admit(std::list<Job*>::iterator place) {
  const std::uint64_t call = (*place)->control.call;
  while (place != line_.end()) {
    Job& job = **place;
    join_group(job);
    queue_.splice(queue_.end(), line_, place);
    if (job.waiting) job.wake.notify_one();
    place = std::find_if(line_.begin(), line_.end(), [call](const Job* other) {
      return call != 0 && other->control.call == call;
    });
  }
}

// Whether another part of the same call is among `jobs`.
bool Scheduler::has_company(const Job& job, const std::list<Job*>& jobs) const {
  return job.control.call != 0 && std::any_of(jobs.begin(), jobs.end(), [&job](const Job* other) {
           return other != &job && other->control.call == job.control.call;
         });
}

std::size_t Scheduler::calls_served() const {
  const auto is_first_of_its_call = [this](const Job* job) {
    const std::uint64_t call = job->control.call;
    return call == 0 ||
           job == *std::find_if(queue_.begin(), queue_.end(),
                                [call](const Job* other) { return other->control.call == call; });
  };
  return static_cast<std::size_t>(
      std::count_if(queue_.begin(), queue_.end(), is_first_of_its_call));
}

void Scheduler::join_group(Job& job) {
  for (const Job* other : queue_) {
    if (can_share_chunk(other->plan, job.plan)) {
      job.group = other->group;
      return;
    }
  }
  job.group = ++last_group_;
}

void Scheduler::throw_if_stopped(const Job& job) const {
  if (job.stopped == Stop::none) return;
  const std::string came = " with " + std::to_string(job.rows_done()) + " of " +
                           std::to_string(job.rows_in_all()) + " rows done";
  if (job.stopped == Stop::cancelled) {
    throw CancelledError(config_.log_name + ": cancelled" + came);
  }
  throw DeadlineError(config_.log_name + ": the deadline passed" +
                      (job.group == 0 ? " in the queue, which is full at " +
                                            std::to_string(config_.queue_limit) + " calls"
                                      : came));
}

// -- stopping ------------------------------------------------------------------------------------

void Scheduler::stop(Job& job, Stop reason) {
  if (job.over()) return;
  job.stopped = reason;
  for (Chunk* chunk : running_) end_if_abandoned(*chunk);
  job.wake.notify_one();
}

// Ends a run whose results nobody wants any more.
void Scheduler::end_if_abandoned(Chunk& chunk) {
  const bool wanted = std::any_of(chunk.parts.begin(), chunk.parts.end(), [](const auto& part) {
    return part.job != nullptr && part.job->stopped == Stop::none;
  });
  if (wanted || chunk.terminated) return;
  chunk.terminated = true;
  api_(abi::RunOptionsSetTerminate, chunk.options);
}

void Scheduler::watch_deadline(const Job& job) {
  if (!watchman_.joinable()) {
    try {
      watchman_ = std::thread(&Scheduler::watch, this);
    } catch (const std::system_error& error) {
      throw EngineError(config_.log_name + ": cannot watch the deadline: " + error.what());
    }
  }
  if (*job.control.deadline < next_look_) {
    next_look_ = *job.control.deadline;
    watchman_wakes_.notify_one();
  }
}

// The watchman's work: stops jobs whose deadline has passed, and sleeps until the next one.
void Scheduler::watch() {
  Lock lock(mutex_);
  while (!closing_) {
    const Clock::time_point now = Clock::now();
    next_look_ = Clock::time_point::max();
    for (const std::list<Job*>* jobs : {&queue_, &line_}) {
      for (Job* job : *jobs) {
        if (!job->control.deadline) continue;
        if (*job->control.deadline <= now) {
          stop(*job, Stop::deadline);
        } else {
          next_look_ = std::min(next_look_, *job->control.deadline);
        }
      }
    }
    if (next_look_ == Clock::time_point::max()) {
      watchman_wakes_.wait(lock);
    } else {
      watchman_wakes_.wait_until(lock, Clock::time_point(next_look_));
    }
  }
}

// -- leading -------------------------------------------------------------------------------------

// Runs one chunk; returns whether there was one to run.
bool Scheduler::lead(Lock& lock, Job& leader) {
  if (leader.group == 0 || running_.size() >= config_.runs_at_once) return false;
  Chunk chunk;
  if (!fill(chunk)) return false;
  // The last rows of one part of a call do not wait: the other parts are about to end as well.
  if (!running_.empty() && !chunk.full && leader.control.call == 0) return false;
  if (!leader.options) leader.options = ort::make<ort::RunOptions>(api_, abi::CreateRunOptions);
  chunk.options = leader.options->get();
  for (const Chunk::Part& part : chunk.parts) {
    part.job->in_chunk = true;
    ++part.job->pins;
    // Whose turn it was stands at the end from now on.
    queue_.splice(queue_.end(), queue_, std::find(queue_.begin(), queue_.end(), part.job));
  }
  running_.push_back(&chunk);
  wake_a_leader();

  lock.unlock();
  std::exception_ptr failure;
  try {
    execute(chunk);
  } catch (...) {
    failure = std::current_exception();
  }
  lock.lock();
  running_.remove(&chunk);
  ++counts_.runs;
  if (chunk.parts.size() > 1) ++counts_.shared_runs;
  if (chunk.terminated) api_(abi::RunOptionsUnsetTerminate, chunk.options);
  settle(chunk, failure);
  return true;
}

// Takes rows for a chunk, in turn; returns whether there are any.
bool Scheduler::fill(Chunk& chunk) {
  const Job* first = nullptr;
  std::int64_t room = 0;
  for (Job* job : queue_) {
    if (!job->runnable()) continue;
    if (first != nullptr && (first->alone || job->alone || job->group != first->group)) continue;
    std::int64_t most = job->plan.batch_size;
    if (counts_.row_limit > 0 && !job->plan.pad) most = std::min(most, counts_.row_limit);
    if (first != nullptr) most = std::min(most, room);
    const std::int64_t rows = std::min(most - chunk.rows, job->plan.rows() - job->done);
    if (rows <= 0) continue;
    if (first == nullptr) first = job;
    room = most;
    chunk.parts.push_back({job, job->done, job->done + rows});
    chunk.rows += rows;
    if (chunk.rows == room) break;
  }
  chunk.full = chunk.rows == room;
  chunk.padded = first != nullptr && first->plan.pad;
  return first != nullptr;
}

void Scheduler::execute(Chunk& chunk) {
  if (chunk.parts.size() > 1) return execute_merged(chunk);
  const auto& [job, first, end] = chunk.parts.front();
  if (!job->runner) {
    job->runner = make_chunk_runner(api_, session_, job->plan, job->results);
  }
  job->runner->run(first, end, chunk.options);
}

// The jobs are pinned when this begins and when it ends, but not while the rows run: until then a
// job may leave.
void Scheduler::execute_merged(Chunk& chunk) {
  std::vector<Segment> segments;
  for (const auto& [job, first, end] : chunk.parts) segments.push_back({&job->plan, first, end});
  const auto unpin = [&] {
    for (const Chunk::Part& part : chunk.parts) {
      if (part.job != nullptr && --part.job->pins == 0) part.job->wake.notify_one();
    }
  };
  const auto pin = [&] {
    for (const Chunk::Part& part : chunk.parts) {
      if (part.job != nullptr) ++part.job->pins;
    }
  };
  MergedChunk merged(segments);
  {
    const std::lock_guard lock(mutex_);
    unpin();
  }
  std::exception_ptr failure;
  try {
    make_chunk_runner(api_, session_, merged.plan(), merged.results())
        ->run(0, chunk.rows, chunk.options);
  } catch (...) {
    failure = std::current_exception();
  }
  {
    const std::lock_guard lock(mutex_);
    pin();
  }
  if (failure) std::rethrow_exception(failure);
  for (std::size_t i = 0; i < chunk.parts.size(); ++i) {
    if (const Job* job = chunk.parts[i].job) merged.scatter(i, job->results);
  }
}

// Books what a chunk has done, and wakes those whom it concerns.
void Scheduler::settle(Chunk& chunk, std::exception_ptr failure) {
  if (failure && !chunk.terminated) blame(chunk, failure);
  for (const auto& [job, first, end] : chunk.parts) {
    if (job == nullptr) continue;
    --job->pins;
    job->in_chunk = false;
    if (failure) {
      job->runner.reset();  // its buffers may be half filled, or too large
    } else {
      if (job->control.tally) job->control.tally->done += end - first;
      job->done = end;
      job->alone = false;
    }
    if (job->over() || job->has_news()) job->wake.notify_one();
  }
}

// After a failure: memory that ran out is tried with half the rows from now on; calls that shared
// the chunk are tried one by one; else it is the fault of the call.
void Scheduler::blame(Chunk& chunk, const std::exception_ptr& failure) {
  Job* const only = chunk.parts.size() == 1 ? chunk.parts.front().job : nullptr;
  const std::string message = message_of(failure);
  if (is_out_of_memory(message) && chunk.rows > 1 && !chunk.padded) {
    const std::int64_t half = chunk.rows / 2;
    counts_.row_limit = counts_.row_limit == 0 ? half : std::min(counts_.row_limit, half);
  } else if (only == nullptr) {
    for (const Chunk::Part& part : chunk.parts) {
      if (part.job != nullptr) part.job->alone = true;
    }
  } else {
    only->failure = std::make_exception_ptr(EngineError(rows_of(chunk) + message));
  }
}

std::string Scheduler::rows_of(const Chunk& chunk) const {
  const Chunk::Part& part = chunk.parts.front();
  const std::int64_t first = part.job->plan.first_row;
  return config_.log_name + ": rows " + std::to_string(first + part.first) + ".." +
         std::to_string(first + part.end - 1) + ": ";
}

// Wakes a sleeping thread that may run a chunk now, if there is one.
void Scheduler::wake_a_leader() {
  if (running_.size() >= config_.runs_at_once) return;
  const auto ready = [](const Job* job) { return job->runnable(); };
  if (std::none_of(queue_.begin(), queue_.end(), ready)) return;
  const auto asleep =
      std::find_if(queue_.begin(), queue_.end(), [](const Job* job) { return job->waiting; });
  if (asleep != queue_.end()) (*asleep)->wake.notify_one();
}

}  // namespace igonnx
