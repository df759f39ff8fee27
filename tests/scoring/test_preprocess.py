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
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from scoring.errors import PreprocessError, TooManyPixelsError
from scoring.preprocess import Normalise, Preprocess
from scoring.spec import load_spec
from tests.data import real_data

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
    return Normalise(preprocess)(preprocess.fit(image)[None])[0]


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
        found = Normalise(Preprocess(**PLAIN))(pixels).flatten()
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


def jpeg(size: tuple[int, int], orientation: int = 1) -> bytes:
    """A photograph's kind of picture: smooth, with noise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = picture((5, 4)).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    Image.blend(small, picture(size), 0.1).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def grey_levels(found: torch.Tensor, wanted: torch.Tensor) -> tuple[int, float]:
    """The largest and the mean difference."""
    assert found.shape == wanted.shape
    off = (found.int() - wanted.int()).abs()
    return int(off.max()), float(off.float().mean())


class TestDecoders:
    def reading(self, decoder: str, **changes: Any) -> Preprocess:
        return Preprocess(**PLAIN | {"resize": 64, "crop": (56, 60), "decoder": decoder} | changes)

    def test_pillow_is_what_is_not_said(self) -> None:
        """Neither a factory nor a preset of weights has to know of decoders."""
        assert Preprocess(**PLAIN).decoder == "pillow"
        assert Preprocess.from_torchvision(WEIGHTS[0].transforms()).decoder == "pillow"

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_turbo_is_torchvision_s_own_way(self, interpolation: str, file_format: str) -> None:
        """Pillow's pixels, then torchvision's transforms of 8-bit tensors: exactly those numbers."""
        for size in SIZES:
            buffer = io.BytesIO()
            picture(size).save(buffer, file_format)
            preprocess = self.reading("turbo", interpolation=interpolation)
            decoded = functional.pil_to_tensor(Image.open(buffer))
            resized = functional.resize(decoded, [64], InterpolationMode(interpolation), antialias=True)
            assert preprocess.read(buffer.getvalue()).equal(functional.center_crop(resized, [56, 60]))
            assert preprocess.fit(Image.open(buffer)).equal(functional.center_crop(resized, [56, 60]))

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("size", [(640, 480), (301, 457), (97, 31), (20, 50)])
    def test_turbo_is_pillow_to_the_rounding(self, size: tuple[int, int], interpolation: str) -> None:
        """Two grey levels at most, a hundredth of one on average."""
        turbo, pillow = (self.reading(name, interpolation=interpolation) for name in ("turbo", "pillow"))
        largest, mean = grey_levels(turbo.read(jpeg(size)), pillow.read(jpeg(size)))
        assert largest <= 2
        assert mean < 0.01

    @pytest.mark.parametrize("size", [(255, 300), (640, 255)])
    def test_scaling_leaves_pictures_below_four_times_the_size_alone(self, size: tuple[int, int]) -> None:
        """There `turbo-scaled` is `turbo`, and so it is for every PNG."""
        scaled, turbo = self.reading("turbo-scaled"), self.reading("turbo")
        assert scaled.read(jpeg(size)).equal(turbo.read(jpeg(size)))
        buffer = io.BytesIO()
        picture((640, 480)).save(buffer, "PNG")
        assert scaled.read(buffer.getvalue()).equal(turbo.read(buffer.getvalue()))

    @pytest.mark.parametrize(
        ("size", "scale"), [((256, 300), 2), ((511, 513), 2), ((700, 512), 4), ((1023, 1050), 4), ((1100, 1024), 8)]
    )
    def test_scaling_is_pillow_s_draft_to_at_least_twice_the_size(self, size: tuple[int, int], scale: int) -> None:
        """A half, a quarter, an eighth: Pillow's pixels in draft mode, resized to the shape of the whole picture."""
        draft = Image.open(io.BytesIO(jpeg(size)))
        whole = functional.resize(Image.new("RGB", size), [64])
        draft.draft("RGB", (size[0] // scale, size[1] // scale))
        assert draft.size == tuple(-(-side // scale) for side in size)
        resized = functional.resize(functional.pil_to_tensor(draft), [whole.height, whole.width], antialias=True)
        found = self.reading("turbo-scaled").read(jpeg(size))
        assert found.equal(functional.center_crop(resized, [56, 60]))
        assert grey_levels(found, self.reading("pillow").read(jpeg(size)))[1] < 1

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("size", [(90, 120), (300, 280)])
    def test_all_turn_alike(self, size: tuple[int, int], orientation: int) -> None:
        """Every orientation of EXIF, where asked for: turned after resizing or before is the same to the rounding."""
        pillow, turbo, scaled = (
            self.reading(name, exif_transpose=True).read(jpeg(size, orientation))
            for name in ("pillow", "turbo", "turbo-scaled")
        )
        assert grey_levels(turbo, pillow)[0] <= 2
        assert grey_levels(scaled, pillow)[1] < 1
        untouched = self.reading("turbo", exif_transpose=False)
        assert untouched.read(jpeg(size, orientation)).equal(untouched.read(jpeg(size)))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_without_resizing_they_are_the_same(self, orientation: int) -> None:
        """What is only turned and cropped has Pillow's pixels, one by one."""
        pillow, turbo = (self.reading(name, resize=None, exif_transpose=True) for name in ("pillow", "turbo"))
        for size in ((90, 120), (41, 31), (1, 1)):
            assert turbo.read(jpeg(size, orientation)).equal(pillow.read(jpeg(size, orientation)))

    def test_limits_are_those_of_the_whole_picture(self) -> None:
        """A scale that would make it small enough does not help a picture that is too large."""
        for name in ("pillow", "turbo", "turbo-scaled"):
            with pytest.raises(TooManyPixelsError, match="640x480"):
                self.reading(name).read(jpeg((640, 480)), max_pixels=640 * 480 - 1)

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    def test_on_photographs(self, interpolation: str) -> None:
        """Real JPEGs in the size of real networks: the deviations that docs/benchmarks.md states."""
        size = {"resize": 256, "crop": (224, 224), "interpolation": interpolation}
        pillow, turbo, scaled = (self.reading(name, **size) for name in ("pillow", "turbo", "turbo-scaled"))
        means = []
        for path in sorted(real_data("imagenet_sample").rglob("*.[jJ][pP]*"))[::20]:
            data = path.read_bytes()
            largest, mean = grey_levels(turbo.read(data), pillow.read(data))
            assert largest <= 2, path
            assert grey_levels(scaled.read(data), pillow.read(data))[1] < 4, path
            means.append(mean)
        assert sum(means) / len(means) < 0.01


CHANGES: dict[str, Any] = {
    "resize": 9,
    "crop": (7, 6),
    "mean": (0.1, 0.2, 0.30001),
    "std": (0.4, 0.50001, 0.6),
    "interpolation": "bicubic",
    "exif_transpose": True,
    "decoder": "turbo",
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
        assert Preprocess(**PLAIN).digest() == "aac323c3ab9f3ae907949c77df2768c9bb3ae9acaa933cb8b91c9e82f5933d38"


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
            ("decoder", "gpu"),
            ("size", 224),
        ],
    )
    def test_are_refused_by_name(self, field: str, value: object) -> None:
        """Each nonsense value, and a field that does not exist."""
        with pytest.raises(ValidationError) as caught:
            Preprocess(**PLAIN | {field: value})
        assert {error["loc"][0] for error in caught.value.errors()} == {field}

    @pytest.mark.parametrize("decoder", ["turbo", "turbo-scaled"])
    @pytest.mark.parametrize("interpolation", ["nearest", "lanczos", "box", "hamming"])
    def test_an_interpolation_that_the_decoder_lacks(self, decoder: str, interpolation: str) -> None:
        """Refused by the decoder's name, and never done in another way."""
        with pytest.raises(
            ValidationError, match=f"'{decoder}' resizes bilinear or bicubic, not {interpolation}"
        ) as caught:
            Preprocess(**PLAIN | {"interpolation": interpolation, "decoder": decoder})
        assert [error["loc"] for error in caught.value.errors()] == [("decoder",)]

    def test_scaling_without_a_size_to_scale_to(self) -> None:
        """`turbo-scaled` without `resize` would be `turbo` under another name."""
        with pytest.raises(ValidationError, match="'turbo-scaled' needs a size to scale down to: resize is None"):
            Preprocess(**PLAIN | {"resize": None, "decoder": "turbo-scaled"})

    def test_a_decoder_is_not_blamed_for_its_neighbours(self) -> None:
        """Where `resize` and `interpolation` are nonsense themselves, only they are named."""
        with pytest.raises(ValidationError) as caught:
            Preprocess(**PLAIN | {"resize": 0, "interpolation": "cubic", "decoder": "turbo-scaled"})
        assert {error["loc"][0] for error in caught.value.errors()} == {"resize", "interpolation"}

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
