// The face that Python sees: igonnx._core.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "engine.hpp"
#include "errors.hpp"
#include "onednn.hpp"

namespace py = pybind11;

namespace igonnx {

namespace {

using Arrays = std::vector<py::array>;
using Doubles = py::array_t<double>;
using ProviderList = std::vector<std::pair<std::string, std::map<std::string, std::string>>>;

abi::ElementType element_type(const py::array& array, const std::string& label) {
  const py::dtype dtype = array.dtype();
  const char kind = dtype.kind();
  const auto size = dtype.itemsize();
  const auto matches = [&](char expected_kind, abi::ElementType type) {
    return kind == expected_kind && size == size_of(type);
  };
  using enum abi::ElementType;
  if (dtype.byteorder() == '=' || dtype.byteorder() == '|') {
    if (matches('b', boolean)) return boolean;
    for (abi::ElementType type : {float16, float32, float64}) {
      if (matches('f', type)) return type;
    }
    for (abi::ElementType type : {int8, int16, int32, int64}) {
      if (matches('i', type)) return type;
    }
    for (abi::ElementType type : {uint8, uint16, uint32, uint64}) {
      if (matches('u', type)) return type;
    }
  }
  throw InputError(label + " has dtype " + std::string(py::str(dtype)) +
                   "; expected bool, an integer, float16, float32 or float64 in native byte order");
}

ArrayView view(const py::array& array, const std::string& label) {
  if ((array.flags() & py::array::c_style) == 0) {
    throw InputError(label + " is not C-contiguous; pass numpy.ascontiguousarray of it");
  }
  return {array.data(), element_type(array, label),
          std::vector<std::int64_t>(array.shape(), array.shape() + array.ndim())};
}

void require_count(std::size_t given, const std::string& what, std::size_t expected,
                   const std::string& of_what) {
  if (given != expected) {
    throw InputError(std::to_string(given) + " " + what + " were given for " +
                     std::to_string(expected) + " " + of_what);
  }
}

Plan make_plan(const std::vector<std::string>& explained, const Arrays& x, const Arrays& baseline,
               const std::vector<std::string>& fixed_names, const Arrays& fixed,
               const std::vector<bool>& batched) {
  require_count(x.size(), "arrays x", explained.size(), "explained tensors");
  require_count(baseline.size(), "baselines", explained.size(), "explained tensors");
  require_count(fixed.size(), "arrays", fixed_names.size(), "fixed inputs");
  require_count(batched.size(), "flags `batched`", fixed_names.size(), "fixed inputs");
  Plan plan;
  for (std::size_t i = 0; i < explained.size(); ++i) {
    const std::string of_name = " of '" + explained[i] + "'";
    plan.explained.push_back(
        {explained[i], view(x[i], "x" + of_name), view(baseline[i], "baseline" + of_name)});
  }
  for (std::size_t i = 0; i < fixed.size(); ++i) {
    plan.fixed.push_back(
        {fixed_names[i], view(fixed[i], "fixed input '" + fixed_names[i] + "'"), batched[i]});
  }
  return plan;
}

Doubles zeros(const std::vector<std::int64_t>& shape) {
  Doubles array(shape);
  std::fill_n(array.mutable_data(), array.size(), 0.0);
  return array;
}

std::unique_ptr<Session> make_session(const py::bytes& model,
                                      std::optional<std::string> external_data_folder, int threads,
                                      const ProviderList& providers, std::string log_name,
                                      std::size_t queue_limit, std::size_t runs_at_once,
                                      std::size_t lanes) {
  SessionConfig config;
  config.model = std::string_view(model);
  config.external_data_folder = std::move(external_data_folder);
  config.threads = threads;
  config.log_name = std::move(log_name);
  config.queue_limit = queue_limit;
  config.runs_at_once = std::max<std::size_t>(runs_at_once, 1);
  config.lanes = std::max<std::size_t>(lanes, 1);
  for (const auto& [name, options] : providers) {
    config.providers.push_back({name, {options.begin(), options.end()}});
  }
  const py::gil_scoped_release released;
  return std::make_unique<Session>(config);
}

using PlanResults = std::tuple<std::vector<Doubles>, Doubles, Doubles>;
using PythonProgress = std::optional<std::function<void(std::int64_t, std::int64_t)>>;

// While the interpreter ends, a daemon thread that asks for the GIL is unwound. Destructors further
// up would ask again, and the process abort; so the thread waits here for the process to end.
[[noreturn]] void wait_for_the_end() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// Without the GIL from here to the end of the scope.
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  ~GilReleased() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      wait_for_the_end();
    }
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

// Runs `function` with the GIL, and hands on the exceptions of Python handlers of signals (Ctrl-C).
template <typename Function>
void with_gil(Function function) {
  std::optional<py::gil_scoped_acquire> acquired;
  try {
    acquired.emplace();
  } catch (...) {
    wait_for_the_end();
  }
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  function();
}

// Python runs handlers of signals on its main thread only.
bool on_main_thread() {
  const py::module_ threading = py::module_::import("threading");
  return threading.attr("get_ident")().equal(threading.attr("main_thread")().attr("ident"));
}

CallControl call_control(std::optional<double> timeout, std::shared_ptr<CancelToken> cancel,
                         const PythonProgress& progress) {
  CallControl control;
  control.cancel = std::move(cancel);
  if (timeout) {
    // A year is as good as any longer time, and does not overflow.
    const std::chrono::duration<double> seconds(std::clamp(*timeout, 0.0, 3.2e7));
    control.deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(seconds);
  }
  if (progress) {
    control.progress = [&progress](std::int64_t done, std::int64_t total) {
      with_gil([&] { (*progress)(done, total); });
    };
  }
  if (on_main_thread()) control.poll = [] { with_gil([] {}); };
  return control;
}

PlanResults run_plan(Session& session, const std::vector<std::string>& explained, const Arrays& x,
                     const Arrays& baseline, const std::vector<std::string>& fixed_names,
                     const Arrays& fixed, const std::vector<bool>& batched,
                     const py::array& cotangent, const py::array& row, const py::array& alpha,
                     const py::array& weight, std::int64_t batch_size, bool pad,
                     const PythonProgress& progress, std::optional<double> timeout,
                     // The optional is for the stub: a bare pointer's None would not show there.
                     const std::optional<std::shared_ptr<CancelToken>>& cancel, std::size_t lanes) {
  Plan plan = make_plan(explained, x, baseline, fixed_names, fixed, batched);
  plan.cotangent = view(cotangent, "cotangent");
  plan.row = view(row, "row");
  plan.alpha = view(alpha, "alpha");
  plan.weight = view(weight, "weight");
  plan.batch_size = batch_size;
  plan.pad = pad;
  session.check(plan);

  std::vector<Doubles> gradients;
  Doubles score = zeros(plan.row.shape);
  Doubles slope = zeros(plan.row.shape);
  Results results{{}, score.mutable_data(), slope.mutable_data()};
  for (const ExplainedInput& input : plan.explained) {
    gradients.push_back(zeros(input.x.shape));
    results.weighted_gradient.push_back(gradients.back().mutable_data());
  }
  const CallControl control = call_control(timeout, cancel.value_or(nullptr), progress);
  {
    const GilReleased released;
    session.run(plan, results, control, lanes);
  }
  return {std::move(gradients), std::move(score), std::move(slope)};
}

Doubles run_scores(Session& session, const std::vector<std::string>& explained, const Arrays& x,
                   const Arrays& baseline, const std::vector<std::string>& fixed_names,
                   const Arrays& fixed, const std::vector<bool>& batched,
                   const py::array& cotangent, const py::array& row,
                   const std::vector<std::string>& by_row_names, const Arrays& by_row,
                   std::int64_t batch_size, bool pad, const PythonProgress& progress,
                   std::optional<double> timeout,
                   const std::optional<std::shared_ptr<CancelToken>>& cancel, std::size_t lanes) {
  require_count(by_row.size(), "arrays", by_row_names.size(), "inputs by row");
  Plan plan = make_plan(explained, x, baseline, fixed_names, fixed, batched);
  plan.cotangent = view(cotangent, "cotangent");
  plan.row = view(row, "row");
  for (std::size_t i = 0; i < by_row.size(); ++i) {
    plan.by_row.push_back({by_row_names[i], view(by_row[i], "input '" + by_row_names[i] + "'")});
  }
  plan.gradients = false;
  plan.batch_size = batch_size;
  plan.pad = pad;
  session.check(plan);

  Doubles score = zeros(plan.row.shape);
  const Results results{{}, score.mutable_data(), nullptr};
  const CallControl control = call_control(timeout, cancel.value_or(nullptr), progress);
  {
    const GilReleased released;
    session.run(plan, results, control, lanes);
  }
  return score;
}

std::string runtime_version() {
  const Runtime* runtime = Runtime::attached();
  if (runtime == nullptr) throw EngineError("no onnxruntime is attached");
  return runtime->version();
}

// Raises igonnx.errors.<name>. Messages carry names and paths, which need not be UTF-8.
void raise(const char* name, const char* message) {
  const auto type = py::module_::import("igonnx.errors").attr(name);
  const auto text = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(message, static_cast<py::ssize_t>(std::strlen(message)), "replace"));
  PyErr_SetObject(type.ptr(), text.ptr());
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const InputError& error) {
    raise("InputError", error.what());
  } catch (const DeadlineError& error) {
    raise("DeadlineError", error.what());
  } catch (const CancelledError& error) {
    raise("CancelledError", error.what());
  } catch (const EngineError& error) {
    raise("EngineError", error.what());
  } catch (const ort::StatusError& error) {
    raise("EngineError", error.what());
  }
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The native engine, on the ONNX Runtime that this process uses already.";
  py::register_local_exception_translator(translate);

  module.def(
      "is_attached", [] { return Runtime::attached() != nullptr; },
      "Whether an ONNX Runtime has registered this library.");
  module.def("runtime_version", runtime_version,
             "The version of the attached ONNX Runtime; EngineError if there is none.");
  module.def("load_onednn", onednn::load, py::arg("path"),
             "Load oneDNN, for products in bfloat16, and return its version; EngineError if it or "
             "the processor does not do.");

  py::class_<CancelToken, std::shared_ptr<CancelToken>>(
      module, "CancelToken",
      "Stops the calls that it was handed to, from any thread. Once cancelled it stays so.")
      .def(py::init<>())
      .def(
          "cancel",
          [](CancelToken& token) {
            const GilReleased released;
            token.cancel();
          },
          "Stop every call that has this token, now and later; returns at once.")
      .def_property_readonly("cancelled", &CancelToken::cancelled, "Whether cancel() was called.");

  py::class_<Session>(module, "Session", "An explanation graph, loaded. Safe to share by threads.")
      .def(py::init(&make_session), py::arg("model"), py::arg("external_data_folder"),
           py::arg("threads"), py::arg("providers"), py::arg("log_name"),
           py::arg("queue_limit") = 0, py::arg("runs_at_once") = 1, py::arg("lanes") = 1,
           "Load a serialised graph; `threads` 0 leaves their number to the runtime. At most "
           "`queue_limit` calls are served at a time (0: any number), by `runs_at_once` runs, of "
           "which `lanes` for one call.")
      .def_property_readonly("input_names", &Session::input_names)
      .def_property_readonly("output_names", &Session::output_names)
      .def_property_readonly(
          "calls", [](Session& session) { return session.counts().calls; },
          "Calls that have begun and not ended.")
      .def_property_readonly(
          "runs", [](Session& session) { return session.counts().runs; },
          "Runs of the runtime that have ended.")
      .def_property_readonly(
          "shared_runs", [](Session& session) { return session.counts().shared_runs; },
          "Those of them that had rows of several calls.")
      .def_property_readonly(
          "row_limit", [](Session& session) { return session.counts().row_limit; },
          "Rows that a run may have since memory ran out with twice as many; 0: any number.")
      .def("run_plan", run_plan, py::arg("explained"), py::arg("x"), py::arg("baseline"),
           py::arg("fixed_names"), py::arg("fixed"), py::arg("batched"), py::arg("cotangent"),
           py::arg("row"), py::arg("alpha"), py::arg("weight"), py::arg("batch_size"),
           py::arg("pad"), py::arg("progress"), py::arg("timeout") = py::none(),
           py::arg("cancel") = py::none(), py::arg("lanes") = 1024,
           "Return the weighted gradient per explained tensor [R, ...], the scores [B] and the "
           "slopes [B].")
      .def("run_scores", run_scores, py::arg("explained"), py::arg("x"), py::arg("baseline"),
           py::arg("fixed_names"), py::arg("fixed"), py::arg("batched"), py::arg("cotangent"),
           py::arg("row"), py::arg("by_row_names"), py::arg("by_row"), py::arg("batch_size"),
           py::arg("pad"), py::arg("progress"), py::arg("timeout") = py::none(),
           py::arg("cancel") = py::none(), py::arg("lanes") = 1024,
           "Return the scores [B] of a graph without gradients; `by_row` are inputs [B, ...].");
}

}  // namespace igonnx
