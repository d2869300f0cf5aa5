#include "engine.hpp"

#include <algorithm>
#include <map>

#include "errors.hpp"

namespace igonnx {

namespace {

// Where the runtime looks for the external initializers of a model that it is given as bytes.
constexpr const char* external_data_key = "session.model_external_initializers_file_folder_path";

void append_provider(const ort::Api& api, abi::SessionOptions* options, const Provider& provider) {
  if (provider.name == "CPUExecutionProvider") return;  // always there, and always last
  std::vector<const char*> keys;
  std::vector<const char*> values;
  for (const auto& [key, value] : provider.options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  if (provider.name != "CUDAExecutionProvider") {
    api(abi::SessionOptionsAppendExecutionProvider, options, provider.name.c_str(), keys.data(),
        values.data(), keys.size());
    return;
  }
  const auto cuda = ort::make<ort::CudaProviderOptions>(api, abi::CreateCUDAProviderOptions);
  api(abi::UpdateCUDAProviderOptions, cuda.get(), keys.data(), values.data(), keys.size());
  api(abi::SessionOptionsAppendExecutionProvider_CUDA_V2, options, cuda.get());
}

std::string quoted(const std::vector<std::string>& names) {
  std::string result;
  for (const std::string& name : names) result += (result.empty() ? "'" : ", '") + name + "'";
  return result;
}

// Every array of the plan under the name of the graph input that it is for.
std::map<std::string, const ArrayView*> arrays_by_input(const Plan& plan) {
  std::map<std::string, const ArrayView*> arrays{{"row", &plan.row},
                                                 {"cotangent", &plan.cotangent}};
  if (plan.gradients) {
    arrays["alpha"] = &plan.alpha;
    arrays["weight"] = &plan.weight;
  }
  for (const RowInput& input : plan.by_row) arrays[input.name] = &input.array;
  for (const ExplainedInput& input : plan.explained) {
    arrays["x:" + input.name] = &input.x;
    arrays["baseline:" + input.name] = &input.baseline;
  }
  for (const FixedInput& input : plan.fixed) arrays[input.name] = &input.array;
  return arrays;
}

}  // namespace

Session::Session(const SessionConfig& config) try
    : runtime_(config.runtime != nullptr ? *config.runtime : Runtime::for_engine()),
      log_name_(config.log_name),
      session_(create(config)),
      scheduler_(runtime_.api(), session_.get(),
                 {config.log_name, config.queue_limit, config.runs_at_once}),
      lanes_(config.lanes) {
  const ort::Api& api = runtime_.api();
  const auto count_inputs = ort::get<std::size_t>(api, abi::SessionGetInputCount, session_.get());
  const auto count_outputs = ort::get<std::size_t>(api, abi::SessionGetOutputCount, session_.get());
  for (std::size_t i = 0; i < count_inputs; ++i) inputs_.push_back(port(i, true));
  for (std::size_t i = 0; i < count_outputs; ++i) outputs_.push_back(port(i, false));
} catch (const ort::StatusError& error) {
  throw EngineError(config.log_name + ": cannot create a session: " + error.what());
}

ort::Session Session::create(const SessionConfig& config) const {
  const ort::Api& api = runtime_.api();
  const auto options = ort::make<ort::SessionOptions>(api, abi::CreateSessionOptions);
  // Every failure comes back as a status and is thrown; logged as well, it would be told twice.
  api(abi::SetSessionLogSeverityLevel, options.get(), static_cast<int>(abi::LoggingLevel::fatal));
  api(abi::SetSessionGraphOptimizationLevel, options.get(), abi::OptimizationLevel::all);
  if (config.threads > 0) api(abi::SetIntraOpNumThreads, options.get(), config.threads);
  if (config.external_data_folder) {
    api(abi::AddSessionConfigEntry, options.get(), external_data_key,
        config.external_data_folder->c_str());
  }
  for (const Provider& provider : config.providers) append_provider(api, options.get(), provider);
  runtime_.add_operators(options.get());
  return ort::make<ort::Session>(api, abi::CreateSessionFromArray, runtime_.env().get(),
                                 config.model.data(), config.model.size(), options.get());
}

Port Session::port(std::size_t index, bool is_input) const {
  const ort::Api& api = runtime_.api();
  auto* allocator = ort::get<abi::Allocator*>(api, abi::GetAllocatorWithDefaultOptions);
  char* name =
      is_input ? ort::get<char*>(api, abi::SessionGetInputName, session_.get(), index, allocator)
               : ort::get<char*>(api, abi::SessionGetOutputName, session_.get(), index, allocator);
  Port result{name, abi::ElementType::undefined, {}};
  api(abi::AllocatorFree, allocator, name);

  const ort::TypeInfo type =
      is_input
          ? ort::make<ort::TypeInfo>(api, abi::SessionGetInputTypeInfo, session_.get(), index)
          : ort::make<ort::TypeInfo>(api, abi::SessionGetOutputTypeInfo, session_.get(), index);
  const auto* tensor =
      ort::get<const abi::TensorInfo*>(api, abi::CastTypeInfoToTensorInfo, type.get());
  if (tensor != nullptr) {
    result.type = ort::get<abi::ElementType>(api, abi::GetTensorElementType, tensor);
    result.shape = ort::shape_of(api, tensor);
  }
  return result;
}

std::vector<std::string> Session::names(const std::vector<Port>& ports) {
  std::vector<std::string> result;
  for (const Port& port : ports) result.push_back(port.name);
  return result;
}

const Port* Session::find_input(const std::string& name) const {
  const auto found = std::find_if(inputs_.begin(), inputs_.end(),
                                  [&name](const Port& port) { return port.name == name; });
  return found == inputs_.end() ? nullptr : &*found;
}

std::optional<std::string> Session::metadata(const std::string& key) const {
  const ort::Api& api = runtime_.api();
  auto* allocator = ort::get<abi::Allocator*>(api, abi::GetAllocatorWithDefaultOptions);
  const auto all = ort::make<ort::ModelMetadata>(api, abi::SessionGetModelMetadata, session_.get());
  char* value = ort::get<char*>(api, abi::ModelMetadataLookupCustomMetadataMap, all.get(),
                                allocator, key.c_str());
  if (value == nullptr) return std::nullopt;
  std::string result(value);
  api(abi::AllocatorFree, allocator, value);
  return result;
}

abi::ElementType Session::type_of_output(const std::string& name) const {
  const auto found = std::find_if(outputs_.begin(), outputs_.end(),
                                  [&name](const Port& port) { return port.name == name; });
  if (found == outputs_.end()) {
    throw InputError(log_name_ + " has no output '" + name + "'; it has " + quoted(output_names()));
  }
  return found->type;
}

void Session::check(const Plan& plan) const {
  igonnx::check(plan);
  std::map<std::string, const ArrayView*> arrays = arrays_by_input(plan);
  for (const Port& input : inputs_) {
    const auto found = arrays.find(input.name);
    if (found == arrays.end()) {
      throw InputError(log_name_ + " takes an input '" + input.name + "', which was not given");
    }
    if (found->second->type != input.type) {
      throw InputError("input '" + input.name + "' has dtype " + name_of(found->second->type) +
                       "; " + log_name_ + " takes " + name_of(input.type));
    }
    arrays.erase(found);
  }
  if (!arrays.empty()) {
    throw InputError(log_name_ + " takes no input '" + arrays.begin()->first + "'; it takes " +
                     quoted(input_names()));
  }
  std::vector<std::string> wanted{"score"};
  if (plan.gradients) {
    wanted.push_back("slope");
    for (const ExplainedInput& input : plan.explained) {
      wanted.push_back("weighted_gradient:" + input.name);
    }
  }
  for (const std::string& name : wanted) {
    if (type_of_output(name) != plan.type()) {
      throw InputError("output '" + name + "' of " + log_name_ + " has dtype " +
                       name_of(type_of_output(name)) + "; expected " + name_of(plan.type()) +
                       ", that of x");
    }
  }
}

}  // namespace igonnx
