#include "operators/all.hpp"

#include "operators/activation_mask.hpp"
#include "operators/depthwise_gradient.hpp"
#include "operators/gelu_with_slope.hpp"
#include "operators/interleave_phases.hpp"
#include "operators/layer_norm_gradient.hpp"
#include "operators/masked_rows.hpp"
#include "operators/matmul_bfloat16.hpp"
#include "operators/max_pool_gradient.hpp"
#include "operators/softmax_gradient.hpp"
#include "operators/stem_gradient.hpp"

namespace igonnx::plugin {

std::vector<CustomOperator> all_operators(const ort::Api& api, std::uint32_t abi_version) {
  return {
      make_operator<ActivationMask<float>>(api, abi_version),
      make_operator<ActivationMask<double>>(api, abi_version),
      make_operator<DepthwiseGradient>(api, abi_version),
      make_operator<GeluWithSlope<float>>(api, abi_version),
      make_operator<GeluWithSlope<double>>(api, abi_version),
      make_operator<InterleavePhases>(api, abi_version),
      make_operator<LayerNormGradient<float>>(api, abi_version),
      make_operator<LayerNormGradient<double>>(api, abi_version),
      make_operator<MaskedRows<float>>(api, abi_version),
      make_operator<MaskedRows<double>>(api, abi_version),
      make_operator<MatMulBFloat16>(api, abi_version),
      make_operator<MaxPoolGradient>(api, abi_version),
      make_operator<StemGradient>(api, abi_version),
      make_operator<SoftmaxGradient<float>>(api, abi_version),
      make_operator<SoftmaxGradient<double>>(api, abi_version),
  };
}

}  // namespace igonnx::plugin
