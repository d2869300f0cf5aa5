// Integrated Gradients in a C++ program:
//
//   explain RUNTIME MODEL INPUT.npy TARGET OUTPUT.npy [STEPS]
//
// RUNTIME is ONNX Runtime's shared library: libonnxruntime.so of a release, or of the Python wheel
// (onnxruntime/capi/libonnxruntime.so.1.x.y). A program that is linked to it calls OrtGetApiBase()
// instead. MODEL is what `igonnx compile` wrote, INPUT float32 with the batch axis in front, TARGET
// the class to explain.
#include <dlfcn.h>
#include <igonnx/igonnx.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "npy.hpp"

namespace {

const OrtApiBase* load_runtime(const char* path) {
  // It stays loaded: explainers keep it in use.
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  void* function = dlsym(library, "OrtGetApiBase");
  if (function == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<const OrtApiBase* (*)()>(function)();
}

void require(igonnx_code code, const igonnx_error& error) {
  if (code != IGONNX_OK) throw std::runtime_error(error.message);
}

struct Free {
  void operator()(igonnx_explainer* explainer) const { igonnx_free(explainer); }
};
using Explainer = std::unique_ptr<igonnx_explainer, Free>;

Explainer load_explainer(const char* runtime, const char* model) {
  igonnx_error error;
  igonnx_explainer* explainer = nullptr;
  require(igonnx_create(load_runtime(runtime), model, nullptr, &explainer, &error), error);
  return Explainer(explainer);
}

Npy explain(igonnx_explainer* explainer, const Npy& image, std::int64_t target,
            std::int64_t steps) {
  // No name: the model has one input. Baseline: zeros.
  const igonnx_array input{nullptr, image.values.data(), image.shape.data(), image.shape.size(),
                           IGONNX_FLOAT32};
  igonnx_request request = IGONNX_REQUEST_INIT;
  request.inputs = &input;
  request.input_count = 1;
  request.target = &target;
  request.target_count = 1;
  request.steps = steps;
  request.timeout_seconds = 600;

  if (image.shape.empty()) throw std::runtime_error("the input is a single number");
  const auto examples = static_cast<std::size_t>(image.shape.front());
  Npy attribution{image.shape, std::vector<float>(image.values.size())};
  void* const values = attribution.values.data();
  std::vector<double> score(examples), baseline_score(examples), delta(examples);
  igonnx_result result = IGONNX_RESULT_INIT;
  result.attribution = &values;
  result.attribution_count = 1;
  result.score = score.data();
  result.baseline_score = baseline_score.data();
  result.delta = delta.data();

  igonnx_error error;
  require(igonnx_explain(explainer, &request, &result, &error), error);
  for (std::size_t i = 0; i < examples; ++i) {
    std::printf("example %zu: score %.9g, at the baseline %.9g, convergence delta %.3g\n", i,
                score[i], baseline_score[i], delta[i]);
  }
  return attribution;
}

std::int64_t number(const char* text) {
  char* end = nullptr;
  const std::int64_t value = std::strtoll(text, &end, 10);
  if (*text == '\0' || *end != '\0') throw std::runtime_error(std::string(text) + " is no number");
  return value;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 6 || count > 7) {
    std::fputs("usage: explain RUNTIME MODEL INPUT.npy TARGET OUTPUT.npy [STEPS]\n", stderr);
    return 2;
  }
  try {
    const Explainer explainer = load_explainer(arguments[1], arguments[2]);
    const std::int64_t steps = count > 6 ? number(arguments[6]) : 50;
    save_npy(arguments[5],
             explain(explainer.get(), load_npy(arguments[3]), number(arguments[4]), steps));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
