"""The tests that give no right gradient, one by one, each with its reason."""

from __future__ import annotations

__all__ = ["EXCLUDED", "REFUSED"]

_ROUNDED = "piecewise constant: no derivative but zero"
_TIED = (
    "every window or slice holds its extremum more than once: a kink in every element that counts"
)
_RANDOM = "the output is random"
_JUMPS = "the number of elements is at a jump: it changes with every input"

# There is no derivative to compare with.
EXCLUDED: dict[str, str] = {
    "test_ai_onnx_ml_binarizer": _ROUNDED,
    "test_ai_onnx_ml_tree_ensemble_set_membership": _ROUNDED,
    "test_ai_onnx_ml_tree_ensemble_single_tree": _ROUNDED,
    "test_causal_conv_with_state_silu_fp16": "in half precision only, where its differences are mostly rounding",
    "test_ceil": _ROUNDED,
    "test_ceil_example": _ROUNDED,
    "test_dynamicquantizelinear_min_adjusted": "the scale follows the largest element, which is there twice: a kink",
    "test_dynamicquantizelinear_min_adjusted_expanded": "as above, written out",
    "test_floor": _ROUNDED,
    "test_floor_example": _ROUNDED,
    "test_hardmax_axis_0": _ROUNDED,
    "test_hardmax_axis_1": _ROUNDED,
    "test_hardmax_axis_2": _ROUNDED,
    "test_hardmax_default_axis": _ROUNDED,
    "test_hardmax_example": _ROUNDED,
    "test_hardmax_negative_axis": _ROUNDED,
    "test_hardmax_one_hot": _ROUNDED,
    "test_maxpool_3d_dilations": _TIED,
    "test_maxpool_3d_dilations_use_ref_impl": _TIED,
    "test_melweightmatrix": "the edges of the bands are rounded to whole bins",
    "test_range_bfloat16_type_positive_delta": _JUMPS,
    "test_range_bfloat16_type_positive_delta_expanded": _JUMPS,
    "test_range_float16_type_positive_delta": _JUMPS,
    "test_range_float16_type_positive_delta_expanded": _JUMPS,
    "test_range_float_type_positive_delta": _JUMPS,
    "test_range_float_type_positive_delta_expanded": _JUMPS,
    "test_reduce_min_default_axes_keepdims_example": _TIED,
    "test_round": _ROUNDED,
    "test_sign": _ROUNDED,
    "test_slice_start_out_of_bounds": "every output is empty",
    "test_training_dropout": _RANDOM,
    "test_training_dropout_default": _RANDOM,
    "test_training_dropout_default_mask": _RANDOM,
    "test_training_dropout_mask": _RANDOM,
}

_BOX = "no gradient by the box that is cropped; the one by the image is right"
_SCALES = "no gradient by the scales, which set the output's shape; the one by the image is right"
_RATIO = "no gradient by the ratio of dropout; the one by the data is right"
_RANK = (
    "which branch of an If is taken shows only at run time, and with it how many axes a tensor has"
)
_OPTIONAL = "no gradient by an optional sequence that a body takes apart"
_QUANTISATION_SCALE = "gradients pass straight through quantised data, not through the scale"

# igonnx refuses these, and says so.
REFUSED: dict[str, str] = {
    "test_affine_grid_2d_align_corners_expanded": _RANK,
    "test_affine_grid_2d_expanded": _RANK,
    "test_loop16_seq_none": _OPTIONAL,
    "test_dynamicquantizelinear": _QUANTISATION_SCALE,
    "test_dynamicquantizelinear_max_adjusted": _QUANTISATION_SCALE,
    "test_resize_downsample_scales_linear": _SCALES,
    "test_resize_downsample_scales_linear_half_pixel_symmetric": _SCALES,
    "test_resize_tf_crop_and_resize": _BOX,
    "test_resize_tf_crop_and_resize_axes_2_3": _BOX,
    "test_resize_tf_crop_and_resize_axes_3_2": _BOX,
    "test_resize_tf_crop_and_resize_extrapolation_value": _BOX,
    "test_resize_upsample_scales_linear_half_pixel_symmetric": _SCALES,
    "test_training_dropout_zero_ratio": _RATIO,
    "test_training_dropout_zero_ratio_mask": _RATIO,
}
