#include "explainer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "errors.hpp"
#include "graph_description.hpp"
#include "workers.hpp"

namespace igonnx {

namespace {

constexpr std::string_view fixed_prefix = "fixed:";
constexpr int most_threads = 1024;
constexpr std::int64_t most_rows = 1 << 20;

bool on_cpu(const std::vector<Provider>& providers) {
  return std::all_of(providers.begin(), providers.end(), [](const Provider& provider) {
    return provider.name == "CPUExecutionProvider";
  });
}

void require_range(const char* name, std::int64_t given, std::int64_t most) {
  if (given < 0 || given > most) {
    throw InputError(std::string(name) + " is " + std::to_string(given) + "; expected 0 to " +
                     std::to_string(most));
  }
}

SessionConfig session_config(const Runtime& runtime, const ExplainerConfig& config) {
  require_range("threads", config.threads, most_threads);
  require_range("batch_size", config.batch_size, most_rows);
  for (const Provider& provider : config.providers) {
    for (const auto& [key, value] : provider.options) {
      // It would replay a chunk on the addresses of an earlier one; each binds memory of its own.
      if (key == "enable_cuda_graph" && value != "0") {
        throw InputError("enable_cuda_graph of " + provider.name +
                         " is not supported; leave it out");
      }
    }
  }
  const Workers workers =
      on_cpu(config.providers) ? shared_out(config.threads) : Workers{config.threads, 1, 1};
  SessionConfig result;
  result.runtime = &runtime;
  result.model = config.model;
  result.external_data_folder = config.external_data_folder;
  result.threads = workers.threads;
  result.providers = config.providers;
  result.log_name = config.name;
  result.queue_limit = config.queue_limit;
  result.runs_at_once = workers.runs_at_once;
  result.lanes = workers.lanes;
  return result;
}

// What the runtime refuses is a matter of the model, here: no run has begun.
Session opened(const Runtime& runtime, const ExplainerConfig& config) {
  try {
    return Session(session_config(runtime, config));
  } catch (const EngineError& error) {
    throw ModelError(error.what());
  }
}
GraphDescription described(const Session& session, const std::string& model) {
  const std::optional<std::string> text = session.metadata(description_key);
  if (!text) {
    throw ModelError(model + " is no explanation graph, it has no metadata '" +
                     std::string(description_key) +
                     "': write one with `igonnx compile MODEL -o OUT`");
  }
  try {
    return read_description(*text);
  } catch (const ModelError& error) {
    throw ModelError(model + ": its metadata '" + description_key +
                     "' are not understood: " + error.what());
  }
}

Interface interface_of(const Session& session, const std::string& model) {
  const GraphDescription description = described(session, model);
  const auto tensor = [&](std::string name, std::string input, Role role) -> Tensor {
    const Port* port = session.find_input(input);
    if (port == nullptr) {
      throw ModelError(model + " is no explanation graph: it has no input '" + input + "'");
    }
    return {std::move(name), std::move(input), port->type, port->shape, role};
  };
  const auto without_prefix = [](const std::string& name) {
    return name.starts_with(fixed_prefix) ? name.substr(fixed_prefix.size()) : name;
  };
  Interface result{
      model, {}, tensor("", "cotangent", Role::output), description.dtype, description.fixed_rows};
  for (const std::string& name : description.explained) {
    result.inputs.push_back(tensor(name, "x:" + name, Role::explained));
  }
  for (const std::string& name : description.batched) {
    result.inputs.push_back(tensor(without_prefix(name), name, Role::per_example));
  }
  for (const std::string& name : description.shared) {
    result.inputs.push_back(tensor(without_prefix(name), name, Role::shared));
  }
  return result;
}

// What the engine computes for a plan.
struct Sums {
  explicit Sums(const Plan& plan)
      : score(static_cast<std::size_t>(plan.rows())), slope(score.size()) {
    for (const ExplainedInput& input : plan.explained) {
      gradient.emplace_back(static_cast<std::size_t>(plan.requests() * input.x.slice_size()));
    }
  }

  Results results() {
    Results result{{}, score.data(), slope.data()};
    for (std::vector<double>& each : gradient) result.weighted_gradient.push_back(each.data());
    return result;
  }

  std::vector<std::vector<double>> gradient;  // per explained tensor, summed over the path
  std::vector<double> score, slope;           // [rows]
};

// Which rows have a finite score and slope. Refuses others but for slopes of no weight.
template <typename T>
std::vector<bool> finite_rows(const Plan& plan, const Sums& sums) {
  std::vector<bool> finite;
  for (std::size_t i = 0; i < sums.score.size(); ++i) {
    finite.push_back(std::isfinite(sums.score[i]) && std::isfinite(sums.slope[i]));
    const bool needed = static_cast<const T*>(plan.weight.data)[i] != T{0};
    if (finite.back() || (std::isfinite(sums.score[i]) && !needed)) continue;
    char alpha[32];
    std::snprintf(alpha, sizeof alpha, "%.6g",
                  static_cast<double>(static_cast<const T*>(plan.alpha.data)[i]));
    throw NotFiniteError(std::string(std::isfinite(sums.score[i]) ? "the gradient" : "the score") +
                         " is not finite at alpha = " + alpha + " on the path of example " +
                         std::to_string(plan.row_data()[i]) +
                         ": are the inputs finite? else try another baseline");
  }
  return finite;
}

// (x - baseline) * gradient into `attribution` unless that is null, and its sum per example into
// `total` [N].
template <typename T>
void attribute(const ExplainedInput& input, const std::vector<double>& gradient, T* attribution,
               std::vector<double>& total) {
  const auto* x = static_cast<const T*>(input.x.data);
  const auto* baseline = static_cast<const T*>(input.baseline.data);
  const auto slice = static_cast<std::size_t>(input.x.slice_size());
  for (std::size_t example = 0; example < total.size(); ++example) {
    double sum = 0.0;
    for (std::size_t i = example * slice; i < (example + 1) * slice; ++i) {
      const double value =
          (static_cast<double>(x[i]) - static_cast<double>(baseline[i])) * gradient[i];
      sum += value;
      if (attribution != nullptr) attribution[i] = static_cast<T>(value);
    }
    total[example] += sum;
  }
}

}  // namespace

Explainer::Explainer(const Runtime& runtime, const ExplainerConfig& config)
    : session_(opened(runtime, config)),
      interface_(interface_of(session_, config.name)),
      batch_size_(config.batch_size) {}

void Explainer::explain(const Question& question, const Answer& answer,
                        const CallControl& control) {
  if (interface_.dtype == abi::ElementType::float32) {
    explain_in<float>(question, answer, control);
  } else {
    explain_in<double>(question, answer, control);
  }
}

template <typename T>
void Explainer::explain_in(const Question& question, const Answer& answer,
                           const CallControl& control) {
  constexpr auto all_lanes = std::numeric_limits<std::size_t>::max();
  PathPlan<T> path(interface_, question, batch_size_);
  const Plan& plan = path.plan();
  session_.check(plan);
  if (!answer.attribution.empty() && answer.attribution.size() != plan.explained.size()) {
    throw InputError("attribution has " + std::to_string(answer.attribution.size()) +
                     " arrays; expected " + std::to_string(plan.explained.size()) +
                     ", one for each explained input");
  }
  Sums sums(plan);
  session_.run(plan, sums.results(), control, all_lanes);
  const std::vector<bool> finite = finite_rows<T>(plan, sums);
  if (std::find(finite.begin(), finite.end(), false) != finite.end()) {
    // A row that is there for its score alone may have spoilt the sums (a norm at zero, say).
    path.keep(finite);
    Sums again(plan);
    session_.run(plan, again.results(), control, all_lanes);
    sums.gradient = std::move(again.gradient);
  }
  std::vector<double> total(static_cast<std::size_t>(plan.requests()));
  for (std::size_t k = 0; k < plan.explained.size(); ++k) {
    void* attribution = answer.attribution.empty() ? nullptr : answer.attribution[k];
    attribute(plan.explained[k], sums.gradient[k], static_cast<T*>(attribution), total);
  }
  const std::size_t points = path.points().alpha.size();
  for (std::size_t example = 0; example < total.size(); ++example) {
    const double start = sums.score[example * points];
    const double end = sums.score[(example + 1) * points - 1];
    if (answer.score != nullptr) answer.score[example] = end;
    if (answer.baseline_score != nullptr) answer.baseline_score[example] = start;
    if (answer.delta != nullptr) answer.delta[example] = total[example] - (end - start);
  }
  if (answer.path_score != nullptr) std::ranges::copy(sums.score, answer.path_score);
  if (answer.path_slope != nullptr) std::ranges::copy(sums.slope, answer.path_slope);
}

}  // namespace igonnx
