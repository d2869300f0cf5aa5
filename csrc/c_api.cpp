// The face that C and C++ programs see: include/igonnx/igonnx.h.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cancel_token.hpp"
#include "errors.hpp"
#include "explainer.hpp"
#include "igonnx/igonnx.h"
#include "runtime.hpp"

struct igonnx_explainer {
  igonnx::Explainer explainer;
};

// The token itself is shared with the calls that have it.
struct igonnx_cancel_token {
  std::shared_ptr<igonnx::CancelToken> token = std::make_shared<igonnx::CancelToken>();
};

namespace igonnx {

namespace {

void fill(igonnx_error* error, igonnx_code code, const char* message) noexcept {
  if (error == nullptr) return;
  error->code = code;
  std::strncpy(error->message, message, sizeof error->message - 1);
  error->message[sizeof error->message - 1] = '\0';
}

// Runs `body`; what it throws becomes a code and a message.
template <typename Body>
igonnx_code guarded(igonnx_error* error, const Body& body) noexcept {
  const auto failed = [error](igonnx_code code, const std::exception& thrown) {
    fill(error, code, thrown.what());
    return code;
  };
  try {
    body();
    fill(error, IGONNX_OK, "");
    return IGONNX_OK;
  } catch (const InputError& thrown) {
    return failed(IGONNX_INVALID_ARGUMENT, thrown);
  } catch (const ModelError& thrown) {
    return failed(IGONNX_MODEL_ERROR, thrown);
  } catch (const NotFiniteError& thrown) {
    return failed(IGONNX_NOT_FINITE, thrown);
  } catch (const DeadlineError& thrown) {
    return failed(IGONNX_DEADLINE, thrown);
  } catch (const CancelledError& thrown) {
    return failed(IGONNX_CANCELLED, thrown);
  } catch (const EngineError& thrown) {
    return failed(IGONNX_RUNTIME_ERROR, thrown);
  } catch (const ort::StatusError& thrown) {
    return failed(IGONNX_RUNTIME_ERROR, thrown);
  } catch (const std::bad_alloc&) {
    fill(error, IGONNX_OUT_OF_MEMORY, "memory has run out");
    return IGONNX_OUT_OF_MEMORY;
  } catch (const std::exception& thrown) {
    return failed(IGONNX_INTERNAL_ERROR, thrown);
  } catch (...) {
    fill(error, IGONNX_INTERNAL_ERROR, "unknown");
    return IGONNX_INTERNAL_ERROR;
  }
}

template <typename T>
T& required(T* pointer, const char* name) {
  if (pointer == nullptr) throw InputError(std::string(name) + " is NULL");
  return *pointer;
}

// `count` elements at `data`, which may be null only if there are none.
template <typename T>
std::pair<T*, T*> range(T* data, std::size_t count, const char* name) {
  if (data == nullptr && count > 0) {
    throw InputError(std::string(name) + " is NULL; expected " + std::to_string(count) +
                     " elements");
  }
  return {data, data == nullptr ? data : data + count};
}

// A caller's struct as this library knows it: fields that an older caller does not have are zero,
// and those that a newer one has must be. `first_size` is the size that the struct had at first.
template <typename T>
T known(const T* given, const char* name, std::size_t first_size = sizeof(T)) {
  const std::size_t size = required(given, name).struct_size;
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  if (size < first_size || size > 1 << 16) {
    throw InputError(std::string(name) + ".struct_size is " + std::to_string(size) +
                     "; expected sizeof(igonnx_" + name + ")");
  }
  if (std::any_of(bytes + std::min(size, sizeof(T)), bytes + size,
                  [](unsigned char byte) { return byte != 0; })) {
    throw InputError(std::string(name) + " has a field that igonnx " IGONNX_VERSION
                                         " does not know; expected zero");
  }
  T result{};
  std::memcpy(&result, given, std::min(size, sizeof(T)));
  return result;
}

abi::ElementType element_type(igonnx_type type, const std::string& label) {
  const auto known_type = static_cast<abi::ElementType>(type);
  if (size_of(known_type) == 0) {
    throw InputError(label + " has type " + std::to_string(type) +
                     "; expected one of enum igonnx_type");
  }
  return known_type;
}

NamedArray named_array(const igonnx_array& array, const char* what) {
  const std::string name = array.name == nullptr ? "" : array.name;
  const std::string label = std::string(what) + (name.empty() ? "" : " '" + name + "'");
  if (array.rank > 64) {
    throw InputError(label + " has rank " + std::to_string(array.rank) + "; expected at most 64");
  }
  const auto [first, last] = range(array.shape, array.rank, "the shape of an array");
  NamedArray result{name, {array.data, element_type(array.type, label), {first, last}}};
  if (std::any_of(first, last, [](std::int64_t size) { return size < 0 || size > 1LL << 40; })) {
    throw InputError(label + " has a dimension below 0 or above 2^40");
  }
  if (array.data == nullptr && result.array.bytes() > 0) throw InputError(label + " has no data");
  return result;
}

std::vector<NamedArray> named_arrays(const igonnx_array* arrays, std::size_t count,
                                     const char* what) {
  const auto [first, last] = range(arrays, count, what);
  std::vector<NamedArray> result;
  for (const igonnx_array* each = first; each != last; ++each) {
    result.push_back(named_array(*each, what));
  }
  return result;
}

Rule rule_of(igonnx_rule rule) {
  switch (rule) {
    case IGONNX_GAUSS_LEGENDRE:
      return Rule::gauss_legendre;
    case IGONNX_TRAPEZOID:
      return Rule::trapezoid;
    case IGONNX_MIDDLE:
      return Rule::middle;
    case IGONNX_LEFT:
      return Rule::left;
    case IGONNX_RIGHT:
      return Rule::right;
    default:
      throw InputError("rule is " + std::to_string(rule) + "; expected one of enum igonnx_rule");
  }
}

Question question_of(const igonnx_request& request) {
  Question question;
  question.inputs = named_arrays(request.inputs, request.input_count, "input");
  question.baselines = named_arrays(request.baselines, request.baseline_count, "baseline");
  const auto [first, last] = range(request.target, request.target_count, "target");
  question.target.assign(first, last);
  if (request.cotangent != nullptr) {
    question.cotangent = named_array(*request.cotangent, "the cotangent").array;
  }
  question.rule = rule_of(request.rule);
  question.steps = request.steps;
  return question;
}

CallControl control_of(const igonnx_request& request) {
  CallControl control;
  const double timeout = request.timeout_seconds;
  if (std::isnan(timeout) || timeout < 0.0) {
    throw InputError("timeout_seconds is " + std::to_string(timeout) + "; expected 0 or more");
  }
  if (timeout > 0.0) {
    // A year is as good as any longer time, and does not overflow.
    const std::chrono::duration<double> seconds(std::min(timeout, 3.2e7));
    control.deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(seconds);
  }
  if (request.cancel != nullptr) control.cancel = request.cancel->token;
  if (request.progress != nullptr) {
    control.progress = [tell = request.progress, user = request.user](std::int64_t done,
                                                                      std::int64_t total) {
      if (tell(user, done, total) == 0) return;
      throw CancelledError("cancelled by its progress function with " + std::to_string(done) +
                           " of " + std::to_string(total) + " rows done");
    };
  }
  return control;
}

Answer answer_of(const igonnx_result& result) {
  const auto [first, last] = range(result.attribution, result.attribution_count, "attribution");
  return {{first, last}, result.score,      result.baseline_score,
          result.delta,  result.path_score, result.path_slope};
}

std::vector<Provider> providers_of(const igonnx_options& options) {
  std::vector<Provider> result;
  const auto [first, last] = range(options.providers, options.provider_count, "providers");
  for (const igonnx_provider* each = first; each != last; ++each) {
    Provider provider{&required(each->name, "the name of a provider"), {}};
    const auto keys = range(each->keys, each->option_count, "the keys of a provider");
    const auto values = range(each->values, each->option_count, "the values of a provider");
    for (std::size_t i = 0; i < each->option_count; ++i) {
      provider.options.emplace_back(&required(keys.first[i], "the key of an option"),
                                    &required(values.first[i], "the value of an option"));
    }
    result.push_back(std::move(provider));
  }
  return result;
}

std::filesystem::path path_of(const char* text) {
  return std::filesystem::path(reinterpret_cast<const char8_t*>(text));
}

std::string text_of(const std::filesystem::path& path) {
  const std::u8string text = path.u8string();
  return {text.begin(), text.end()};
}

std::string contents(const char* path) {
  std::ifstream file(path_of(path), std::ios::binary);
  if (!file) throw ModelError(std::string(path) + " cannot be opened");
  std::error_code failure;
  const std::uintmax_t size = std::filesystem::file_size(path_of(path), failure);
  std::string bytes(failure ? 0 : size, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file || bytes.empty()) throw ModelError(std::string(path) + " cannot be read");
  return bytes;
}

igonnx_explainer* created(const OrtApiBase* runtime, std::string_view model,
                          const igonnx_options& options, const char* name, const char* folder) {
  ExplainerConfig config;
  config.model = model;
  config.name = options.name != nullptr ? options.name : name;
  if (options.external_data_folder != nullptr) folder = options.external_data_folder;
  if (folder != nullptr) config.external_data_folder = folder;
  config.providers = providers_of(options);
  config.threads = options.threads;
  config.batch_size = options.batch_size;
  config.queue_limit = options.queue_limit;
  // OrtApiBase is ONNX Runtime's name for what ort_abi.h declares.
  const auto* base = reinterpret_cast<const abi::ApiBase*>(runtime);
  return new igonnx_explainer{Explainer(Runtime::attach(*base), config)};
}

igonnx_options options_or_defaults(const igonnx_options* options) {
  return options == nullptr ? igonnx_options{} : known(options, "options");
}

void describe(const Tensor& tensor, igonnx_role role, igonnx_tensor_info* info) {
  const std::size_t size = known(info, "tensor_info").struct_size;
  const igonnx_tensor_info found{size,
                                 tensor.name.c_str(),
                                 tensor.shape.data(),
                                 tensor.shape.size(),
                                 static_cast<igonnx_type>(tensor.type),
                                 role};
  std::memcpy(info, &found, std::min(size, sizeof found));
}

igonnx_role role_of(Role role) {
  switch (role) {
    case Role::explained:
      return IGONNX_EXPLAINED;
    case Role::per_example:
      return IGONNX_PER_EXAMPLE;
    case Role::shared:
      return IGONNX_SHARED;
    case Role::output:
      break;
  }
  return IGONNX_OUTPUT;
}

}  // namespace

}  // namespace igonnx

using namespace igonnx;

igonnx_code igonnx_create(const OrtApiBase* runtime, const char* path,
                          const igonnx_options* options, igonnx_explainer** explainer,
                          igonnx_error* error) noexcept {
  return guarded(error, [&] {
    required(explainer, "explainer") = nullptr;
    required(runtime, "runtime");
    const std::filesystem::path file = path_of(&required(path, "path"));
    const igonnx_options chosen = options_or_defaults(options);
    const std::string model = contents(path);
    *explainer = created(runtime, model, chosen, text_of(file.filename()).c_str(),
                         text_of(std::filesystem::absolute(file).parent_path()).c_str());
  });
}

igonnx_code igonnx_create_from_memory(const OrtApiBase* runtime, const void* data, size_t size,
                                      const igonnx_options* options, igonnx_explainer** explainer,
                                      igonnx_error* error) noexcept {
  return guarded(error, [&] {
    required(explainer, "explainer") = nullptr;
    required(runtime, "runtime");
    if (size == 0) throw ModelError("the model in memory is empty");
    required(static_cast<const char*>(data), "data");
    *explainer = created(runtime, {static_cast<const char*>(data), size},
                         options_or_defaults(options), "the model", nullptr);
  });
}

void igonnx_free(igonnx_explainer* explainer) noexcept { delete explainer; }

size_t igonnx_input_count(const igonnx_explainer* explainer) noexcept {
  return explainer == nullptr ? 0 : explainer->explainer.interface().inputs.size();
}

igonnx_code igonnx_input_info(const igonnx_explainer* explainer, size_t index,
                              igonnx_tensor_info* info, igonnx_error* error) noexcept {
  return guarded(error, [&] {
    const auto& inputs = required(explainer, "explainer").explainer.interface().inputs;
    if (index >= inputs.size()) {
      throw InputError("index is " + std::to_string(index) + "; expected less than " +
                       std::to_string(inputs.size()));
    }
    describe(inputs[index], role_of(inputs[index].role), info);
  });
}

igonnx_code igonnx_output_info(const igonnx_explainer* explainer, igonnx_tensor_info* info,
                               igonnx_error* error) noexcept {
  return guarded(error, [&] {
    describe(required(explainer, "explainer").explainer.interface().output, IGONNX_OUTPUT, info);
  });
}

igonnx_code igonnx_explain(igonnx_explainer* explainer, const igonnx_request* request,
                           igonnx_result* result, igonnx_error* error) noexcept {
  return guarded(error, [&] {
    const igonnx_request asked = known(request, "request");
    const Answer answer = answer_of(known(result, "result"));
    const CallControl control = control_of(asked);
    required(explainer, "explainer").explainer.explain(question_of(asked), answer, control);
  });
}

igonnx_code igonnx_path(igonnx_rule rule, int64_t steps, double* alpha, double* weight,
                        size_t* count, igonnx_error* error) noexcept {
  return guarded(error, [&] {
    const Quadrature points = with_ends(quadrature(rule_of(rule), steps));
    required(count, "count") = points.alpha.size();
    if (alpha != nullptr) std::ranges::copy(points.alpha, alpha);
    if (weight != nullptr) std::ranges::copy(points.weight, weight);
  });
}

igonnx_cancel_token* igonnx_cancel_token_create(void) noexcept {
  igonnx_cancel_token* created_token = nullptr;
  guarded(nullptr, [&] { created_token = new igonnx_cancel_token; });
  return created_token;
}

void igonnx_cancel(igonnx_cancel_token* token) noexcept {
  guarded(nullptr, [&] { required(token, "token").token->cancel(); });
}

void igonnx_cancel_token_free(igonnx_cancel_token* token) noexcept { delete token; }

const char* igonnx_version(void) noexcept { return IGONNX_VERSION; }
