"""The two halves of the preprocessing, together equal to the transforms that networks were published with."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision import models, transforms

from scoring.errors import PreprocessError, TooManyPixelsError
from scoring.preprocess import Preprocess
from scoring.spec import load_spec

PLAIN: dict[str, Any] = {"resize": 8, "crop": (6, 7), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
SIZES = [(224, 224), (640, 480), (301, 457), (256, 1000), (97, 31), (1, 1), (20, 150)]
WEIGHTS = [
    models.ResNet18_Weights.IMAGENET1K_V1,
    models.ResNet50_Weights.IMAGENET1K_V2,
    models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    models.EfficientNet_V2_S_Weights.IMAGENET1K_V1,
    models.Swin_V2_T_Weights.IMAGENET1K_V1,
    models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
]


def picture(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def prepare(preprocess: Preprocess, image: Image.Image) -> torch.Tensor:
    return preprocess.normalise(preprocess.fit(image)[None])[0]


class TestTorchvision:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("entry", WEIGHTS, ids=str)
    def test_equals_the_preset(self, entry: models.WeightsEnum, size: tuple[int, int]) -> None:
        """Both halves together are the transforms that come with the weights, on pictures of any shape."""
        preset = entry.transforms()
        found = prepare(Preprocess.from_torchvision(preset), picture(size))
        torch.testing.assert_close(found, preset(picture(size)), rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        "preset",
        [
            pytest.param(models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms(), id="segmentation"),
            pytest.param(models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.transforms(), id="detection"),
            pytest.param(models.optical_flow.Raft_Small_Weights.DEFAULT.transforms(), id="optical flow"),
            pytest.param(models.video.R3D_18_Weights.DEFAULT.transforms(), id="video"),
        ],
    )
    def test_refuses_transforms_of_other_tasks(self, preset: Any) -> None:
        """What is no preprocessing of an image classifier is refused by name."""
        with pytest.raises(PreprocessError, match=f"^{type(preset).__name__} are not"):
            Preprocess.from_torchvision(preset)


class TestTimm:
    @pytest.mark.parametrize(
        "name", ["resnet18.a1_in1k", "mobilenetv3_small_050.lamb_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"]
    )
    def test_equals_its_own_transform(self, name: str, tmp_path: Path) -> None:
        """What a timm SPEC says of its images is what timm itself would do."""
        module = timm.create_model(name, pretrained=False)
        torch.save(module.state_dict(), tmp_path / "weights.pt")
        preprocess = load_spec(f"timm:{name}", tmp_path / "weights.pt").preprocess
        own = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
        assert preprocess is not None
        for size in SIZES:
            torch.testing.assert_close(prepare(preprocess, picture(size)), own(picture(size)), rtol=0, atol=1e-6)


class TestFit:
    @pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
    def test_resizes_as_pillow_does(self, interpolation: str) -> None:
        """Every interpolation there is, short side first."""
        found = Preprocess(**PLAIN | {"resize": 20, "crop": (20, 30), "interpolation": interpolation})
        wanted = picture((60, 40)).resize((30, 20), Image.Resampling[interpolation.upper()])
        assert (found.fit(picture((60, 40))).permute(1, 2, 0).numpy() == np.asarray(wanted)).all()

    def test_crops_the_centre(self) -> None:
        """(height, width) around the middle, the pixels untouched."""
        preprocess = Preprocess(**PLAIN | {"resize": None})
        found = preprocess.fit(picture((11, 10)))
        assert found.dtype == torch.uint8
        assert (found.permute(1, 2, 0).numpy() == np.asarray(picture((11, 10)))[2:8, 2:9]).all()

    def test_what_is_missing_is_black(self) -> None:
        """A picture smaller than the crop lies in its middle."""
        found = Preprocess(**PLAIN | {"resize": None, "crop": (4, 6)}).fit(Image.new("RGB", (2, 2), "white"))
        assert found[0].tolist() == [[0] * 6, [0, 0, 255, 255, 0, 0], [0, 0, 255, 255, 0, 0], [0] * 6]

    def test_normalise_is_per_channel(self) -> None:
        """(pixels / 255 - mean) / std."""
        pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
        found = Preprocess(**PLAIN).normalise(pixels).flatten()
        torch.testing.assert_close(found, torch.tensor([(0 - 0.1) / 0.4, (0.2 - 0.2) / 0.5, (1 - 0.3) / 0.6]))


class TestRead:
    def read(self, exif_transpose: bool) -> torch.Tensor:
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        picture((12, 8)).save(buffer, "PNG", exif=exif)
        chosen = Preprocess(**PLAIN | {"resize": None, "crop": (8, 8), "exif_transpose": exif_transpose})
        return chosen.read(buffer.getvalue())

    def test_is_fit_of_the_decoded_picture(self) -> None:
        """Bytes in, pixels of the network's input size out."""
        wanted = np.asarray(picture((12, 8)))[:, 2:10]
        assert (self.read(exif_transpose=False).permute(1, 2, 0).numpy() == wanted).all()

    def test_turns_the_picture_where_asked(self) -> None:
        """`exif_transpose` reaches the decoder."""
        upright = np.rot90(np.asarray(picture((12, 8))), -1)[2:10]
        assert (self.read(exif_transpose=True).permute(1, 2, 0).numpy() == upright).all()


CHANGES: dict[str, Any] = {
    "resize": 9,
    "crop": (7, 6),
    "mean": (0.1, 0.2, 0.30001),
    "std": (0.4, 0.50001, 0.6),
    "interpolation": "bicubic",
    "exif_transpose": True,
}


class TestDigest:
    def test_every_field_has_a_change(self) -> None:
        """The test below leaves no field out."""
        assert set(CHANGES) == set(Preprocess.model_fields)

    @pytest.mark.parametrize("field", CHANGES)
    def test_changes_with_each_field(self, field: str) -> None:
        """No field can change unnoticed."""
        assert Preprocess(**PLAIN | {field: CHANGES[field]}).digest() != Preprocess(**PLAIN).digest()

    def test_of_none_is_another_than_of_a_number(self) -> None:
        """Not to resize is a preprocessing of its own."""
        assert Preprocess(**PLAIN | {"resize": None}).digest() != Preprocess(**PLAIN).digest()

    def test_is_the_same_for_the_same_values(self) -> None:
        """Spelling does not count: lists, tuples and whole numbers, and a journey through JSON."""
        same = Preprocess(**PLAIN)
        assert Preprocess(**PLAIN | {"crop": [6, 7], "mean": [0.1, 0.2, 0.3]}).digest() == same.digest()
        assert Preprocess.model_validate_json(same.model_dump_json()).digest() == same.digest()
        ones = [Preprocess(**PLAIN | {"std": std}).digest() for std in ((1, 1, 1), (1.0, 1.0, 1.0))]
        assert ones[0] == ones[1]

    def test_is_this(self) -> None:
        """Artifacts that exist stay valid: the digest of known values is known."""
        assert Preprocess(**PLAIN).digest() == "2ba7cbc746dc9a837e554161108ef511f28062c1440ec685d32a92d749b6c1ca"


class TestBadValues:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("resize", 0),
            ("resize", -1),
            ("resize", 1.5),
            ("crop", (0, 5)),
            ("crop", (5,)),
            ("crop", (5, 5, 5)),
            ("crop", 224),
            ("mean", (0.5, 0.5)),
            ("mean", (0.5, 0.5, float("nan"))),
            ("mean", 0.5),
            ("std", (0.5, 0.5, 0.0)),
            ("std", (0.5, 0.5, -0.5)),
            ("std", (0.5, 0.5, float("inf"))),
            ("interpolation", "cubic"),
            ("interpolation", "nearest-exact"),
            ("exif_transpose", "perhaps"),
            ("size", 224),
        ],
    )
    def test_are_refused_by_name(self, field: str, value: object) -> None:
        """Each nonsense value, and a field that does not exist."""
        with pytest.raises(ValidationError) as caught:
            Preprocess(**PLAIN | {field: value})
        assert {error["loc"][0] for error in caught.value.errors()} == {field}

    @pytest.mark.parametrize("field", ["resize", "crop", "mean", "std"])
    def test_what_cannot_be_guessed_has_to_be_given(self, field: str) -> None:
        """Size, mean and std have no defaults."""
        with pytest.raises(ValidationError, match=field):
            Preprocess(**{name: value for name, value in PLAIN.items() if name != field})

    def test_nothing_can_be_changed_afterwards(self) -> None:
        """A preprocessing is a value."""
        with pytest.raises(ValidationError, match="frozen"):
            Preprocess(**PLAIN).resize = 9  # type: ignore[misc]


class TestLimit:
    @pytest.mark.parametrize("size", [(7, 1000), (1000, 7), (3, 40), (13, 200)])
    def test_is_on_the_pixels_that_resizing_makes(self, size: tuple[int, int]) -> None:
        """Exactly so many are accepted, and not one less, for awkward ratios too."""
        resized = transforms.functional.resize(picture(size), [16])
        pixels = resized.width * resized.height
        assert pixels > size[0] * size[1]
        preprocess = Preprocess(**PLAIN | {"resize": 16})
        buffer = io.BytesIO()
        picture(size).save(buffer, "PNG")
        assert preprocess.read(buffer.getvalue(), max_pixels=pixels).shape == (3, 6, 7)
        with pytest.raises(TooManyPixelsError, match=f"it would have {pixels}, at most {pixels - 1}"):
            preprocess.read(buffer.getvalue(), max_pixels=pixels - 1)
