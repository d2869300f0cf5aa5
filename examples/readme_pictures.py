"""Make the README's pictures anew: run the examples that draw them, and keep small copies in docs/examples/."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from PIL import Image

LARGEST = (640, 512)  # width and height; of 256 colours each, they stay below 150 kB
ROW = (1100, 512)  # of pictures side by side

# Example and picture.
PICTURES = [
    ("keras_grad_visualizer", "outline"),
    ("towards_data_science_axioms", "outline"),
    ("tensorflow_integrated_gradients", "coffee_saturation"),
    ("geeksforgeeks_variants", "variants"),
    ("captum_tutorial", "grad_cam"),  # takes minutes
]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the examples and shrink a picture of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    folder = Path(__file__).parent.parent / "docs" / "examples"
    parser.add_argument("-o", "--output", type=Path, default=folder, metavar="FOLDER")
    output: Path = parser.parse_args(argv).output
    output.mkdir(parents=True, exist_ok=True)
    for example, stem in PICTURES:
        with tempfile.TemporaryDirectory() as made:
            import_module(example).main(["-o", made])
            picture = Image.open(Path(made) / f"{stem}.png").convert("RGB")
        picture.thumbnail(ROW if picture.width > 3 * picture.height else LARGEST)
        path = output / f"{example}.png"
        picture.quantize(256).save(path, optimize=True)
        print(f"kept {path}")


if __name__ == "__main__":
    main()
