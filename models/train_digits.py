"""Trains the small CNN of `igonnx.models.digits` and writes it with a held-out sample.

    pip install igonnx[parity] scikit-learn
    python -m igonnx.models.train_digits

The data are scikit-learn's digits: 1797 handwritten digits, 8x8 pixels, values 0..16. A quarter,
stratified by class, is held out. Takes some seconds; the seed fixes the result on one machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
EPOCHS = 80
BATCH = 64
SAMPLE = 200
FOLDER = Path(__file__).parent


def network() -> nn.Sequential:
    """Return the untrained CNN, 20,000 parameters: [batch, 1, 8, 8] in 0..1 to [batch, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(48 * 2 * 2, 10),
    )


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Return the images, each moved by up to one pixel each way: the only augmentation."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(images)))
    span = torch.arange(8)
    return padded[
        torch.arange(len(images))[:, None, None],
        0,
        (rows[:, None] + span)[:, :, None],
        (columns[:, None] + span)[:, None, :],
    ][:, None]


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """Return the trained network, in evaluation mode."""
    torch.manual_seed(SEED)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(shifted(images[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: nn.Sequential, path: Path) -> None:
    """Write the network as one ONNX file, its batch normalisations kept as nodes."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=18,
        # The default would fold the batch normalisations into the convolutions.
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )
    exported = onnx.load(path)
    onnx.helper.set_model_props(exported, {"igonnx.preset": "zero-one"})
    onnx.checker.check_model(exported, full_check=True)
    onnx.save(exported, path)


def main() -> None:
    """Train, report the accuracy on the held-out digits, write the model and the sample."""
    digits = load_digits()
    pixels = digits.images.astype(np.uint8)[:, None]
    split = train_test_split(
        pixels, digits.target, test_size=0.25, stratify=digits.target, random_state=SEED
    )
    train_images, test_images = (torch.from_numpy(part).float() / 16 for part in split[:2])
    train_labels, test_labels = (torch.from_numpy(part) for part in split[2:])
    model = train(train_images, train_labels)
    with torch.no_grad():
        correct = model(test_images).argmax(1) == test_labels
    print(f"test accuracy {correct.double().mean():.4f} on {len(correct)} digits")
    export(model, FOLDER / "digits.onnx")
    _, sample, _, labels = train_test_split(
        split[1], split[3], test_size=SAMPLE, stratify=split[3], random_state=SEED
    )
    np.savez_compressed(FOLDER / "digits_test.npz", images=sample, labels=labels.astype(np.int64))


if __name__ == "__main__":
    main()
