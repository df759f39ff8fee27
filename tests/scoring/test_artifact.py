"""The artifact: nothing is lost on the way to the file, nothing broken comes back from it."""

from __future__ import annotations

import copy
import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from scoring.artifact import Artifact
from scoring.errors import ArtifactError, DigestMismatchError
from scoring.metadata import METADATA_KEY
from tests import reference
from tests.scoring.artifacts import (
    ALPHAS,
    CLASSES,
    PREPROCESS,
    build,
    build_by_class,
    build_int8,
    put_together,
    take_apart,
)

CALIBRATION_SCORES = "calibration_scores.line"
TENSORS = {name: tensor.dtype for name, tensor in build()._tensors().items() if not name.startswith("methods.")}
GOLDEN = Path(__file__).parent / "golden" / "tiny.safetensors"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound artifact."""
    file = tmp_path / "sound.safetensors"
    build().save(file)
    return file


def refused(path: Path, field: str) -> ArtifactError:
    """The error that loading a file gives; it has to name the field, in its message too."""
    with pytest.raises(ArtifactError) as caught:
        Artifact.load(path)
    assert caught.value.field == field
    assert repr(field) in str(caught.value)
    return caught.value


class TestRoundTrip:
    def test_gives_everything_back(self, path: Path) -> None:
        """Tensors bit for bit, metadata field for field."""
        before, after = build(), Artifact.load(path)
        assert after.metadata == before.metadata
        assert torch.equal(after.masks.contribution, before.masks.contribution)
        assert torch.equal(after.masks.activation_mask, before.masks.activation_mask)
        assert torch.equal(after.masks.weight_thresholds, before.masks.weight_thresholds)
        assert torch.equal(after.counts, before.counts)
        assert after.predicted.tolist() == before.predicted.tolist()
        for name in ("line", "msp", "dice"):
            assert (after.scores[name] == before.scores[name]).all()
            assert (after.probes[name] == before.probes[name]).all()
        assert list(after.learnt) == list(before.learnt) == ["methods.dice.mean"]
        assert torch.equal(after.learnt["methods.dice.mean"], before.learnt["methods.dice.mean"])

    def test_is_stable(self, path: Path) -> None:
        """What was loaded is written as the very same bytes."""
        assert Artifact.load(path).to_bytes() == path.read_bytes()

    def test_id_is_that_of_the_file(self, path: Path, tmp_path: Path) -> None:
        """Saving answers the id that loading finds; other contents have another."""
        assert build().save(tmp_path / "again") == Artifact.load(path).artifact_id
        assert len(Artifact.load(path).artifact_id) == 16
        assert build(["x", "y", "z"]).save(tmp_path / "other") != Artifact.load(path).artifact_id

    def test_operating_points_keep_their_order(self, path: Path) -> None:
        """By name, the default first."""
        points = Artifact.load(path).operating_points
        assert {name: point.alpha for name, point in points.items()} == ALPHAS
        assert next(iter(points)) == "default"

    def test_thresholds_that_remove_nothing(self, tmp_path: Path) -> None:
        """Minus infinity, of p_w = 0, survives."""
        artifact = build()
        artifact.masks.weight_thresholds.fill_(-torch.inf)
        artifact.save(tmp_path / "a")
        assert Artifact.load(tmp_path / "a").masks.weight_thresholds.isneginf().all()

    def test_names_in_any_script(self, tmp_path: Path) -> None:
        """Class names are text."""
        names = ["Ameise \N{ANT}", "\u8702", 'quote " and \\ and \n line']
        build(names).save(tmp_path / "a")
        assert Artifact.load(tmp_path / "a").metadata.classifier.class_names == names

    def test_what_was_loaded_does_not_hang_on_the_file(self, path: Path) -> None:
        """Writing over the file in place does not reach into an artifact that is being served."""
        artifact = Artifact.load(path)
        before = artifact.masks.contribution.clone()
        with path.open("r+b") as file:
            size = path.stat().st_size
            file.seek(size // 4)
            file.write(b"\xff" * (size - size // 4))
        assert torch.equal(artifact.masks.contribution, before)


class TestGolden:
    def test_loads_to_known_values(self) -> None:
        """A file of format version 1, committed: it stays readable for ever."""
        artifact = Artifact.load(GOLDEN)
        assert artifact.metadata == build().metadata
        assert artifact.masks.contribution[0].tolist() == [-0.375, -0.25, -0.125, 0.0]
        assert artifact.masks.contribution[2].tolist() == [0.625, 0.75, 0.875, 1.0]
        assert artifact.masks.activation_mask.tolist() == [[False, True, True, True]] * 3
        assert artifact.masks.weight_thresholds.tolist() == [-0.5, 1 / 3 - 0.5, 2 / 3 - 0.5]
        assert artifact.counts.tolist() == [0, 1, 2]
        assert artifact.calibration_scores.tolist() == [(index - 7) % 39 / 4 - 9 for index in range(39)]
        assert artifact.predicted.tolist() == [index**2 % 3 for index in range(39)]
        assert {name: point.threshold for name, point in artifact.operating_points.items()} == {
            "default": -0.25,
            "strict": 0.25,
        }
        assert artifact.artifact_id == "c4c40b9b25a28bf9"

    def test_is_what_is_written_today(self) -> None:
        """The same values make the same bytes: the format has not drifted."""
        assert build().to_bytes() == GOLDEN.read_bytes()
        assert Artifact.load(GOLDEN).to_bytes() == GOLDEN.read_bytes()

    def test_is_laid_out_as_specified(self) -> None:
        """Read without any library of ours: length, JSON header, tensors at their offsets."""
        content = GOLDEN.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        metadata = json.loads(header.pop("__metadata__")["line_ood"])
        kinds = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
        assert kinds == {
            "contribution": ("F32", [3, 4]),
            "counts": ("I64", [3]),
            "activation_mask": ("BOOL", [3, 4]),
            "weight_thresholds": ("F64", [3]),
            **{f"calibration_scores.{name}": ("F64", [39]) for name in ("line", "msp", "dice")},
            "calibration_predicted": ("I64", [39]),
            **{f"probe_scores.{name}": ("F64", [8]) for name in ("line", "msp", "dice")},
            "methods.dice.mean": ("F32", [4]),
        }
        assert metadata["format_version"] == 1
        start, end = header["counts"]["data_offsets"]
        assert struct.unpack("<3q", content[8 + length + start : 8 + length + end]) == (0, 1, 2)


def test_a_large_artifact_is_small(tmp_path: Path) -> None:
    """1000 classes, 2048 features, 10 000 calibration images: below 20 MB, and it loads."""
    build([f"class {index}" for index in range(1000)], 2048, 10_000).save(tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 20_000_000
    assert Artifact.load(tmp_path / "a").masks.contribution.shape == (1000, 2048)


class TestByClass:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A sound artifact with thresholds by class: 133 images predicted as bee, 67 as ant, none as cat."""
        build_by_class().save(tmp_path / "by_class.safetensors")
        return tmp_path / "by_class.safetensors"

    def test_thresholds_of_every_method_are_those_of_the_class(self, path: Path) -> None:
        """Made again from scores and predicted classes at load; each is that of the images that the oracle compares."""
        artifact = Artifact.load(path)
        assert artifact.to_bytes() == path.read_bytes()
        for point in artifact.metadata.operating_points:
            assert point.threshold is None
            for name, found in artifact.thresholds(point).items():
                images = list(zip(artifact.scores[name].tolist(), artifact.predicted.tolist(), strict=True))
                for c, threshold in enumerate(found.tolist()):
                    own = sorted(reference.group_of(np.inf, c, images, 39)[:-1], reverse=True)
                    assert threshold == own[int(point.alpha * (len(own) + 1)) - 1]

    def test_the_scores_of_another_order_are_another_artifact(self, path: Path) -> None:
        """The order of the images binds scores to classes: rolled by one, the same scores give other thresholds."""
        artifact = Artifact.load(path)
        point = artifact.metadata.operating_points[0]
        before = artifact.thresholds(point)["line"].tolist()
        tensors, metadata = take_apart(path)
        tensors[CALIBRATION_SCORES] = tensors[CALIBRATION_SCORES].roll(1)
        after = Artifact.load(put_together(path, tensors, metadata)).thresholds(point)["line"].tolist()
        assert before != after

    def test_there_is_no_single_threshold(self, path: Path) -> None:
        """A number that decides nothing is refused where thresholds are by class; where they are not, none is."""
        tensors, metadata = take_apart(path)
        metadata["operating_points"][1]["threshold"] = 0.25
        error = refused(put_together(path, tensors, metadata), "operating_points.1.threshold")
        assert "alone_from" in str(error)
        metadata["operating_points"][1]["threshold"] = None
        metadata["alone_from"] = None
        refused(put_together(path, tensors, metadata), "operating_points.0.threshold")

    def test_operating_points_promise_the_same(self, path: Path) -> None:
        """Of different guarantees the smaller alpha may reject what the larger one accepts."""
        tensors, metadata = take_apart(path)
        metadata["operating_points"][1]["guarantee"] = "pac"
        error = refused(put_together(path, tensors, metadata), "operating_points")
        assert "same guarantee" in str(error)

    def test_alpha_can_be_kept_by_the_smallest_group(self, path: Path) -> None:
        """67 images of a class that stands alone cannot keep 1 %, though 200 could."""
        tensors, metadata = take_apart(path)
        metadata["operating_points"][1]["alpha"] = 0.01
        error = refused(put_together(path, tensors, metadata), "operating_points.1.alpha")
        assert error.wanted == "one that 67 calibration scores can keep"

    @pytest.mark.parametrize("least", [201, 10**30])
    def test_nobody_may_stand_alone(self, path: Path, least: int) -> None:
        """Then all classes have the threshold of all images, however large the number."""
        tensors, metadata = take_apart(path)
        metadata["alone_from"] = least
        artifact = Artifact.load(put_together(path, tensors, metadata))
        (threshold,) = set(artifact.thresholds(artifact.metadata.operating_points[0])["line"].tolist())
        assert threshold == sorted(artifact.calibration_scores, reverse=True)[20 - 1]


class TestInt8:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A sound artifact with a quantised network."""
        build_int8().save(tmp_path / "int8.safetensors")
        return tmp_path / "int8.safetensors"

    def test_gives_the_network_back(self, path: Path) -> None:
        """Byte for byte, and what was measured of it; written again it is the same file."""
        loaded = Artifact.load(path)
        assert loaded.quantised is not None
        assert [bytes(part.tolist()) for part in loaded.quantised] == [b"<net/>", bytes(range(8))]
        assert loaded.metadata == build_int8().metadata
        assert loaded.to_bytes() == path.read_bytes()

    def test_is_laid_out_as_specified(self, path: Path) -> None:
        """Two tensors of bytes more, and one group of fields more; other artifacts have neither."""
        plain = take_apart(GOLDEN)
        tensors, metadata = take_apart(path)
        assert {name: (each.dtype, each.shape) for name, each in tensors.items() if name not in plain[0]} == {
            "int8_network.xml": (torch.uint8, (6,)),
            "int8_network.constants": (torch.uint8, (8,)),
        }
        assert metadata.keys() - plain[1].keys() == {"quantisation"}
        assert metadata["quantisation"].keys() == {"network", "compared_images", "float32", "int8"}

    @pytest.mark.parametrize("names", [["xml"], ["constants"], ["xml", "constants"]])
    def test_without_its_network(self, path: Path, names: list[str]) -> None:
        """A part that is missing is named, with what is there."""
        tensors, metadata = take_apart(path)
        for name in names:
            del tensors[f"int8_network.{name}"]
        error = refused(put_together(path, tensors, metadata), "int8_network")
        assert error.found == [name for name in tensors if name.startswith("int8")]

    def test_a_network_where_none_belongs(self, path: Path) -> None:
        """An engine in float32 has no use for one: somebody has mixed up two artifacts."""
        tensors, metadata = take_apart(path)
        metadata["engine"]["precision"] = "float32"
        assert "precision float32" in str(refused(put_together(path, tensors, metadata), "int8_network"))

    @pytest.mark.parametrize("name", ["xml", "constants"])
    @pytest.mark.parametrize("how", ["a byte", "longer", "empty"])
    def test_another_network(self, path: Path, name: str, how: str) -> None:
        """One byte that is not as it was measured is refused, whatever OpenVINO would make of it."""
        tensors, metadata = take_apart(path)
        whole = tensors[f"int8_network.{name}"]
        whole[-1] ^= how == "a byte"
        changed = {"a byte": whole, "longer": torch.cat([whole, whole[:1]]), "empty": whole[:0]}[how]
        tensors[f"int8_network.{name}"] = changed
        refused(put_together(path, tensors, metadata), "quantisation.network")

    def test_a_byte_that_wanders(self, path: Path) -> None:
        """From the end of one part to the beginning of the other."""
        tensors, metadata = take_apart(path)
        xml, constants = tensors["int8_network.xml"], tensors["int8_network.constants"]
        tensors |= {"int8_network.xml": xml[:-1], "int8_network.constants": torch.cat([xml[-1:], constants])}
        refused(put_together(path, tensors, metadata), "quantisation.network")

    @pytest.mark.parametrize("network", [torch.zeros(2, 4, dtype=torch.uint8), torch.zeros(8), torch.tensor(1)])
    def test_that_is_no_row_of_bytes(self, path: Path, network: Tensor) -> None:
        """Another type, another shape."""
        tensors, metadata = take_apart(path)
        tensors["int8_network.constants"] = network
        refused(put_together(path, tensors, metadata), "int8_network.constants")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("network", "0" * 64),
            ("network", "0"),
            ("compared_images", 0),
            ("float32.accuracy", 1.5),
            ("int8.fpr95", -0.1),
            ("int8.fpr95", None),
            ("int8.auroc", 0.5),
        ],
    )
    def test_a_wrong_value_is_named(self, path: Path, field: str, value: object) -> None:
        """What was measured has its bounds, and nothing may be added."""
        tensors, metadata = take_apart(path)
        *groups, last = field.split(".")
        group = metadata["quantisation"][groups[0]] if groups else metadata["quantisation"]
        group[last] = value
        refused(put_together(path, tensors, metadata), f"quantisation.{field}")

    def test_without_what_was_measured(self, path: Path) -> None:
        """Neither a network without its digest, nor a part of the group."""
        tensors, metadata = take_apart(path)
        del metadata["quantisation"]["int8"]["fpr95"]
        refused(put_together(path, tensors, metadata), "quantisation.int8.fpr95")
        del metadata["quantisation"]
        refused(put_together(path, tensors, metadata), "quantisation")

    def test_what_was_measured_where_none_belongs(self, path: Path) -> None:
        """Of another precision nothing of the kind is said."""
        metadata = take_apart(path)[1] | {"engine": SOUND["engine"]}
        refused(put_together(path, take_apart(GOLDEN)[0], metadata), "quantisation")

    def test_of_an_engine_that_has_none(self, path: Path) -> None:
        """Only openvino runs in int8."""
        tensors, metadata = take_apart(path)
        metadata["engine"]["name"] = "eager"
        assert "only openvino" in str(refused(put_together(path, tensors, metadata), "engine"))


class TestSaving:
    def test_can_be_read_by_others(self, path: Path) -> None:
        """Mode 0644, whatever the temporary file had: the server is another user."""
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_replaces_the_old_file_and_leaves_nothing_beside_it(self, path: Path) -> None:
        """One file before, one file after."""
        artifact_id = build(["x", "y", "z"]).save(path)
        assert Artifact.load(path).artifact_id == artifact_id
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("function", ["fsync", "chmod", "replace"])
    def test_that_fails_leaves_the_old_file(self, path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
        """A disk that is full at any moment: the old artifact is whole, and no temporary file remains."""
        before = path.read_bytes()

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(*(os, "fsync") if function == "fsync" else (Path, function), fail)
        with pytest.raises(OSError, match="No space left"):
            build(["x", "y", "z"]).save(path)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]

    def test_onto_a_folder(self, tmp_path: Path) -> None:
        """What cannot be replaced is left alone, and nothing lies about."""
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match="folder"):
            build().save(tmp_path / "folder")
        assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


class TestDigests:
    def test_the_calibrated_classifier_is_accepted(self, path: Path) -> None:
        """Its digest is the artifact's."""
        artifact = Artifact.load(path)
        artifact.check_classifier(artifact.metadata.digests)

    def test_any_other_is_refused(self, path: Path) -> None:
        """Both digests are named."""
        artifact = Artifact.load(path)
        for name in ("weights", "preprocess"):
            wanted = getattr(artifact.metadata.digests, name)
            with pytest.raises(DigestMismatchError, match=f"'digests.{name}': wanted {wanted}, found f+ "):
                artifact.check_classifier(artifact.metadata.digests.model_copy(update={name: "f" * 64}))


def leaves(value: dict[str, Any], prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where every field of the metadata lies, the groups themselves included."""
    for name, child in value.items():
        yield (*prefix, name)
        if isinstance(child, dict) and name not in ("versions", "methods"):
            yield from leaves(child, (*prefix, name))
        if name == "operating_points":
            for index, point in enumerate(child):
                yield from leaves(point, (*prefix, name, index))


SOUND = json.loads(build().metadata.model_dump_json())
FIELDS = [".".join(map(str, leaf)) for leaf in leaves(SOUND)]


def with_change(field: str, change: Any) -> dict[str, Any]:
    """The sound metadata with `change(parent, key)` applied at one field."""
    metadata = copy.deepcopy(SOUND)
    *parents, last = (int(part) if part.isdigit() else part for part in field.split("."))
    parent: Any = metadata
    for key in parents:
        parent = parent[key]
    change(parent, last)
    return metadata


def set_to(value: object) -> Any:
    def change(parent: Any, key: Any) -> None:
        parent[key] = value

    return change


WRONG: list[tuple[str, object]] = [
    ("format_version", 2),
    ("format_version", "1"),
    ("method.name", "energy"),
    ("method.variant", "unsigned"),
    ("method.p_a", -1.0),
    ("method.p_a", 100.0),
    ("method.p_a", float("nan")),
    ("method.p_w", 100.5),
    ("method.p_w", "10"),
    ("method.clip", "high"),
    ("method.clip", float("inf")),
    ("method.clip_quantile", 1.0),
    ("method.clip_quantile", 0.0),
    ("methods", []),
    ("methods", {"guess": {}}),
    ("methods", {"line": {}}),
    ("methods.msp", None),
    ("methods.dice", {"percentile": "90"}),
    ("methods.dice", {"percentile": float("nan")}),
    ("primary", "guess"),
    ("primary", "vim"),
    ("primary", None),
    ("alone_from", 0),
    ("alone_from", -1),
    ("alone_from", 19.0),
    ("alone_from", True),
    ("operating_points", []),
    ("operating_points.0.name", ""),
    ("operating_points.0.name", "two words"),
    ("operating_points.0.name", "line\n"),
    ("operating_points.0.name", "x" * 65),
    ("operating_points.0.alpha", 0.0),
    ("operating_points.0.alpha", 1.0),
    ("operating_points.1.alpha", -0.1),
    ("operating_points.1.alpha", True),
    ("operating_points.0.threshold", float("nan")),
    ("operating_points.0.threshold", float("inf")),
    ("operating_points.0.threshold", None),
    ("classifier.spec", None),
    ("classifier.feature_count", 0),
    ("classifier.feature_count", 4.0),
    ("preprocess.resize", 0),
    ("preprocess.crop", [16]),
    ("preprocess.crop", 16),
    ("preprocess.mean", [0.5, 0.5]),
    ("preprocess.std", None),
    ("preprocess.interpolation", "cubic"),
    ("preprocess.exif_transpose", "yes"),
    ("engine.name", "tensorrt"),
    ("engine.precision", "float16"),
    ("digests.weights", "0123"),
    ("digests.weights", "0123456789ABCDEF" * 4),
    ("digests.preprocess", "0" * 64),
    ("digests.preprocess", 3),
    ("data.mask_images", 0),
    ("data.calibration_images", 0),
    ("data.unreadable", -1),
    ("data.classes_without_images", -1),
    ("data.classes_without_images", 2),
    ("provenance.command", None),
    ("provenance.created", 2024),
    ("provenance.versions", []),
]


class TestMetadata:
    @pytest.mark.parametrize(("field", "value"), WRONG)
    def test_a_wrong_value_is_named(self, path: Path, field: str, value: object) -> None:
        """One field at a time; the error says which."""
        tensors, _ = take_apart(path)
        with pytest.raises(ArtifactError) as caught:
            Artifact.load(put_together(path, tensors, with_change(field, set_to(value))))
        assert f"{caught.value.field}.".startswith(f"{field}.")  # or an item of it, as preprocess.crop.1

    @pytest.mark.parametrize("field", FIELDS)
    def test_nothing_may_be_missing(self, path: Path, field: str) -> None:
        """No field of a file is left to a default, which another version may have changed."""
        tensors, _ = take_apart(path)
        with pytest.raises(ArtifactError) as caught:
            Artifact.load(put_together(path, tensors, with_change(field, lambda parent, key: parent.pop(key))))
        assert caught.value.field in (field, "digests.preprocess")

    @pytest.mark.parametrize("field", [*FIELDS])
    def test_no_field_may_be_nonsense(self, path: Path, field: str) -> None:
        """A value of a type that fits nowhere is refused in every place."""
        tensors, _ = take_apart(path)
        with pytest.raises(ArtifactError) as caught:
            Artifact.load(put_together(path, tensors, with_change(field, set_to({"no": ["sense"]}))))
        assert caught.value.field.startswith(field)

    @pytest.mark.parametrize("group", ["", "method", "operating_points.0", "classifier", "preprocess", "data"])
    def test_nothing_may_be_added(self, path: Path, group: str) -> None:
        """An unknown field is named, not ignored: it may matter to those who wrote it."""
        tensors, _ = take_apart(path)
        field = f"{group}.colour".lstrip(".")
        refused(put_together(path, tensors, with_change(field, set_to("red"))), field)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "{}", "\0", "[" * 100_000])
    def test_that_is_no_metadata(self, path: Path, text: str) -> None:
        """Empty, broken, of another type, or nested without end."""
        tensors, _ = take_apart(path)
        with pytest.raises(ArtifactError):
            Artifact.load(put_together(path, tensors, text))

    @pytest.mark.parametrize("metadata", [None, {}, {"other": "x"}])
    def test_that_is_absent(self, path: Path, metadata: dict[str, str] | None) -> None:
        """A safetensors file of someone else."""
        tensors, _ = take_apart(path)
        path.write_bytes(save(tensors, metadata))
        refused(path, f"metadata.{METADATA_KEY}")

    def test_another_preprocessing_does_not_go_unnoticed(self, path: Path) -> None:
        """A valid but different value does not match the digest."""
        tensors, _ = take_apart(path)
        metadata = with_change("preprocess.resize", set_to(19))
        error = refused(put_together(path, tensors, metadata), "digests.preprocess")
        assert error.wanted == PREPROCESS.model_copy(update={"resize": 19}).digest()

    @pytest.mark.parametrize("names", [CLASSES[:2], [*CLASSES, "dog"]])
    def test_class_names_are_one_a_row(self, path: Path, names: list[str]) -> None:
        """Too few and too many; the tensors say how many there are."""
        tensors, _ = take_apart(path)
        put_together(path, tensors, with_change("classifier.class_names", set_to(names)))
        with pytest.raises(ArtifactError):
            Artifact.load(path)

    def test_class_folders_are_one_a_class(self, path: Path) -> None:
        """As many as class names."""
        tensors, _ = take_apart(path)
        metadata = with_change("classifier.class_folders", set_to(["a", "b"]))
        refused(put_together(path, tensors, metadata), "classifier.class_folders")


class TestOperatingPoints:
    @pytest.mark.parametrize("index", [0, 1])
    def test_thresholds_follow_from_the_scores(self, path: Path, index: int) -> None:
        """A threshold that the calibration scores do not give at its alpha is refused."""
        tensors, _ = take_apart(path)
        field = f"operating_points.{index}.threshold"
        error = refused(put_together(path, tensors, with_change(field, set_to(0.0))), field)
        assert error.found == 0.0

    def test_names_differ(self, path: Path) -> None:
        """Two points of one name could not be told apart."""
        tensors, metadata = take_apart(path)
        metadata["operating_points"].append(metadata["operating_points"][0])
        refused(put_together(path, tensors, metadata), "operating_points")

    @pytest.mark.parametrize("alpha", [0.001, 1e-9, 5e-324])
    def test_alpha_can_be_kept_with_the_scores(self, path: Path, alpha: float) -> None:
        """A rate that so few calibration images cannot keep is a broken field, as any other."""
        tensors, _ = take_apart(path)
        metadata = with_change("operating_points.1.alpha", set_to(alpha))
        with pytest.raises(ArtifactError) as caught:
            Artifact.load(put_together(path, tensors, metadata))
        assert caught.value.field.startswith("operating_points.1")


TYPES = [torch.float16, torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8]


def nan_at_the_end(tensor: Tensor) -> Tensor:
    return torch.where(torch.arange(tensor.numel()).reshape(tensor.shape) == tensor.numel() - 1, torch.nan, tensor)


class TestTensors:
    @pytest.mark.parametrize("name", TENSORS)
    @pytest.mark.parametrize("change", [lambda t: t[1:], lambda t: t[None], lambda t: t.reshape(-1)[:0]])
    def test_wrong_shapes_are_named(self, path: Path, name: str, change: Any) -> None:
        """A row too few, an axis too many, nothing at all."""
        tensors, metadata = take_apart(path)
        tensors[name] = change(tensors[name]).contiguous()
        error = refused(put_together(path, tensors, metadata), name)
        assert error.found == tuple(tensors[name].shape)

    @pytest.mark.parametrize(
        ("name", "dtype"), [(name, dtype) for name in TENSORS for dtype in TYPES if dtype != TENSORS[name]]
    )
    def test_wrong_types_are_named(self, path: Path, name: str, dtype: torch.dtype) -> None:
        """The right numbers in another type, which would change what is compared."""
        tensors, metadata = take_apart(path)
        tensors[name] = tensors[name].to(dtype)
        assert refused(put_together(path, tensors, metadata), name).found == dtype

    @pytest.mark.parametrize("name", TENSORS)
    def test_none_may_be_missing(self, path: Path, name: str) -> None:
        """Those that there are, and those that there should be, are listed."""
        tensors, metadata = take_apart(path)
        del tensors[name]
        found = sorted(name for name in tensors if not name.startswith("methods."))  # those are checked by the methods
        assert refused(put_together(path, tensors, metadata), "tensors").found == found

    def test_none_may_be_added(self, path: Path) -> None:
        """An unknown tensor is not ignored."""
        tensors, metadata = take_apart(path)
        refused(put_together(path, tensors | {"extra": torch.zeros(1)}, metadata), "tensors")

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            pytest.param("contribution", nan_at_the_end, id="contribution nan"),
            pytest.param("contribution", lambda t: t / 0, id="contribution infinite"),
            pytest.param("counts", lambda _: torch.tensor([-1, 0, 4]), id="counts negative"),
            pytest.param("counts", lambda t: t + 1, id="counts of another sum"),
            pytest.param("counts", lambda t: t + torch.tensor([2**62, 2**62, -(2**63)]), id="counts that overflow"),
            pytest.param("weight_thresholds", nan_at_the_end, id="weight_thresholds nan"),
            pytest.param("weight_thresholds", lambda t: t + torch.inf, id="weight_thresholds infinite"),
            pytest.param(CALIBRATION_SCORES, nan_at_the_end, id="scores nan"),
            pytest.param(CALIBRATION_SCORES, lambda t: t * torch.inf, id="scores infinite"),
            pytest.param("calibration_scores.dice", nan_at_the_end, id="scores of another method nan"),
            pytest.param("calibration_predicted", lambda t: t - 1, id="predicted below all classes"),
            pytest.param("calibration_predicted", lambda t: t + 2, id="predicted beyond all classes"),
            pytest.param("calibration_predicted", lambda t: t + 2**62, id="predicted far beyond"),
        ],
    )
    def test_bad_values_are_named(self, path: Path, name: str, change: Any) -> None:
        """NaN, infinity, wrong sums, classes that there are not."""
        tensors, metadata = take_apart(path)
        tensors[name] = change(tensors[name])
        refused(put_together(path, tensors, metadata), name)

    def test_an_activation_mask_of_another_contribution_is_refused(self, path: Path) -> None:
        """It follows from the contribution and p_a; one flipped bit is a broken file."""
        tensors, metadata = take_apart(path)
        tensors["activation_mask"][1, 2] = ~tensors["activation_mask"][1, 2]
        refused(put_together(path, tensors, metadata), "activation_mask")


class TestHostileFiles:
    def test_no_file(self, tmp_path: Path) -> None:
        """The path and the reason are named."""
        assert "nowhere: No such file" in str(refused(tmp_path / "nowhere", "file"))

    def test_a_folder(self, tmp_path: Path) -> None:
        """What is no file is no artifact."""
        refused(tmp_path, "file")

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"garbage", id="short"),
            pytest.param(b"garbage " * 1000, id="garbage"),
            pytest.param(b"PK\3\4" + bytes(100), id="zip"),
            pytest.param(b"\x80\2}q\0.", id="pickle"),
            pytest.param(struct.pack("<Q", 2**63) + b"{}", id="huge header"),
            pytest.param(struct.pack("<Q", 100_000_001) + b"{}", id="header above the limit"),
            pytest.param(struct.pack("<Q", 2**64 - 1) + b"{}", id="header of all bits"),
            pytest.param(struct.pack("<Q", 0), id="no header"),
            pytest.param(struct.pack("<Q", 2) + b"{}", id="no tensors"),
            pytest.param(struct.pack("<Q", 2) + b"{}" + bytes(100), id="bytes of nobody"),
            pytest.param(struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe", id="header of no text"),
        ],
    )
    def test_of_no_safetensors(self, tmp_path: Path, content: bytes) -> None:
        """Whatever the bytes: an ArtifactError, soon."""
        (tmp_path / "hostile").write_bytes(content)
        with pytest.raises(ArtifactError):
            Artifact.load(tmp_path / "hostile")

    def test_cut_anywhere(self, path: Path) -> None:
        """Every seventh prefix of a sound file."""
        whole = path.read_bytes()
        for end in range(0, len(whole), 7):
            path.write_bytes(whole[:end])
            with pytest.raises(ArtifactError):
                Artifact.load(path)

    def test_longer_than_it_says(self, path: Path) -> None:
        """Nothing may be hidden behind the tensors."""
        path.write_bytes(path.read_bytes() + b"\0")
        refused(path, "file")

    def test_too_large(self, tmp_path: Path) -> None:
        """Refused by its size, unread; the file is sparse and costs nothing."""
        with (tmp_path / "large").open("wb") as file:
            file.truncate(2**31 + 1)
        assert "at most" in str(refused(tmp_path / "large", "file"))

    @given(data=st.data())
    def test_mutated(self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Bytes overwritten anywhere: loads, or ArtifactError, nothing else."""
        content = bytearray(GOLDEN.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / "mutated"
        path.write_bytes(content)
        try:
            loaded = Artifact.load(path)
        except ArtifactError:
            return
        assert np.isfinite(loaded.calibration_scores).all()

    def test_true_is_one_bit(self, path: Path) -> None:
        """A mask of bytes that are neither 0 nor 1 is refused, for what is computed with them is not defined."""
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        start, _ = json.loads(content[8 : 8 + length])["activation_mask"]["data_offsets"]
        at = 8 + length + start + 1
        assert content[at] == 1
        path.write_bytes(content[:at] + b"\2" + content[at + 1 :])
        refused(path, "activation_mask")
