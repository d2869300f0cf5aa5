"""`igonnx explain` and its options; what it does is in `igonnx.cli.explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from igonnx.cli.choices import EngineName, Method, SignName, View
from igonnx.cli.method_choice import (
    AnyRuleOption,
    BaselineOption,
    ExactSumOption,
    FeatureMaskOption,
    LayerOption,
    MaxStepsOption,
    MethodOption,
    NeuronOption,
    NoiseOption,
    NoiseSamplesOption,
    NoiseStdOption,
    SamplesOption,
    SeedOption,
    SegmentsOption,
    SettingsOption,
    StepsOption,
    StridesOption,
    ToleranceOption,
    WindowOption,
)
from igonnx.cli.method_options import (
    feature_masks,
    layers,
    settings_of,
    sizes,
    whole_numbers,
)
from igonnx.cli.methods import function_name
from igonnx.cli.options import (
    ApplyOption,
    BatchSizeOption,
    EngineOption,
    GreyOption,
    InputsArgument,
    LabelsOption,
    LayoutOption,
    MeanOption,
    MemoryLimitOption,
    ModelArgument,
    OutputOption,
    PrecisionOption,
    PresetOption,
    ProviderOption,
    ScaleOption,
    SizeOption,
    StdOption,
    StraightThroughOption,
    TargetsOption,
    ThreadsOption,
    WrtOption,
    image_options,
)

__all__ = ["explain"]


def explain(
    model: ModelArgument,
    inputs: InputsArgument,
    picture: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--picture",
            metavar="PATH",
            help="Write a picture: a file, a folder (a path without suffix), or a pattern such as "
            "'out_{name}.png'. Several inputs need one of the latter two.",
        ),
    ] = None,
    view: Annotated[
        View,
        typer.Option(
            metavar="VIEW",
            help=f"What the picture shows beside the input: {', '.join(View)}. "
            "[dim]Default: overview[/dim]",
        ),
    ] = View.overview,
    sign: Annotated[
        SignName | None,
        typer.Option(
            metavar="SIGN",
            help=f"Contributions shown: {', '.join(SignName)}. Default: as suits the view.",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Save the attribution, of all inputs, as arrays."),
    ] = None,
    labels: LabelsOption = None,
    target: TargetsOption = None,
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    method: MethodOption = Method.integrated_gradients,
    baseline: BaselineOption = None,
    steps: StepsOption = None,
    rule: AnyRuleOption = None,
    tolerance: ToleranceOption = None,
    max_steps: MaxStepsOption = None,
    samples: SamplesOption = None,
    layer: LayerOption = None,
    neuron: NeuronOption = None,
    window: WindowOption = None,
    strides: StridesOption = None,
    feature_mask: FeatureMaskOption = None,
    segments: SegmentsOption = None,
    settings: SettingsOption = None,
    noise: NoiseOption = None,
    noise_samples: NoiseSamplesOption = None,
    noise_std: NoiseStdOption = None,
    seed: SeedOption = 0,
    memory_limit: MemoryLimitOption = None,
    exact_sum: ExactSumOption = False,
    preset: PresetOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    grey: GreyOption = False,
    straight_through: StraightThroughOption = True,
    batch_size: BatchSizeOption = None,
    threads: ThreadsOption = None,
    engine: EngineOption = EngineName.native,
    provider: ProviderOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Explain which parts of an input a prediction comes from.

    Prints, for each input, the class, its probability and score, and how far the
    explanation is from adding up exactly (the completeness error).

      igonnx explain model.onnx cat.jpg -o cat.png --preset imagenet --labels imagenet
      igonnx explain model.onnx photos/*.jpg -o pictures/
      igonnx explain model.onnx features.npy --target 3 --tolerance 0.01
      igonnx explain bert.onnx input_ids=ids.npy attention_mask=mask.npy --target 1
    """
    from igonnx.cli.explain import Request, run

    run(
        Request(
            model=model,
            inputs=inputs,
            picture=picture,
            view=view,
            sign=None if sign is None else sign.value,
            save=save,
            labels=labels,
            images=image_options(
                preset=preset, mean=mean, std=std, scale=scale, size=size, layout=layout, grey=grey
            ),
            targets=target or [],
            output=output,
            wrt=wrt or [],
            apply=None if apply is None else apply.value,
            baselines=baseline or [],
            method=function_name(method),
            options={
                "steps": steps,
                "rule": rule,
                "tolerance": tolerance,
                "max_steps": max_steps,
                "exact_sum": exact_sum or None,
                "samples": samples,
                "layer": layers(layer),
                "neuron": whole_numbers("--neuron", neuron),
                "window": sizes("--window", window),
                "strides": sizes("--strides", strides),
                "feature_mask": feature_masks(feature_mask),
                "segments": segments,
                "noise": None if noise is None else noise.value,
                "noise_samples": noise_samples,
                "noise_std": noise_std,
            },
            settings=settings_of(settings),
            seed=seed,
            memory_limit=memory_limit,
            straight_through=straight_through,
            batch_size=batch_size,
            threads=threads,
            engine=engine.value,
            providers=provider or [],
            precision=precision,
        )
    )
