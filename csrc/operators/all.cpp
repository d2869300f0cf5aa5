#include "operators/all.hpp"

#include "operators/activation_mask.hpp"

namespace igonnx::plugin {

std::vector<CustomOperator> all_operators(const ort::Api& api, std::uint32_t abi_version) {
  return {
      make_operator<ActivationMask<float>>(api, abi_version),
      make_operator<ActivationMask<double>>(api, abi_version),
  };
}

}  // namespace igonnx::plugin
