"""Every form of SPEC, weights from every kind of file, and what is said of those that are no use.

Nothing is downloaded: the weights are random ones, written by the tests.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from scoring.classifier import digest_tensors
from scoring.errors import SpecError
from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts, load_spec, read_state_dict
from tests.data import ROOT
from tests.factories import tiny

StateDict = dict[str, Tensor]
TINY = f"{ROOT / 'tests' / 'factories' / 'tiny.py'}:tiny"


@pytest.fixture(scope="module")
def resnet18() -> StateDict:
    """Ten classes, as after fine-tuning."""
    torch.manual_seed(0)
    return models.resnet18(num_classes=10).state_dict()


@pytest.fixture(scope="module")
def resnet18_1000() -> StateDict:
    torch.manual_seed(0)
    return models.resnet18().state_dict()


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def holds(parts: ClassifierParts, state: StateDict) -> bool:
    """Whether the module has exactly these tensors."""
    found = parts.module.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], tensor) for name, tensor in state.items())


class TestWeightFiles:
    @pytest.mark.parametrize(
        ("suffix", "write"),
        [
            pytest.param(".pth", torch.save, id="state dict"),
            pytest.param(
                ".pth.tar", lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path), id="state_dict"
            ),
            pytest.param(".pt", lambda state, path: torch.save({"model": state, "lr": 0.1}, path), id="model"),
            pytest.param(".safetensors", save_file, id="safetensors"),
            pytest.param(
                ".old",
                lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
                id="old format",
            ),
        ],
    )
    def test_every_kind(
        self, resnet18: StateDict, tmp_path: Path, suffix: str, write: Callable[[Any, Path], None]
    ) -> None:
        """A state dict alone, in a checkpoint, as safetensors: the same ten-class network comes out of each."""
        path = tmp_path / f"weights{suffix}"
        write(resnet18, path)
        parts = load_spec("torchvision:resnet18", path)
        assert holds(parts, resnet18)
        assert parts.module.fc.out_features == 10

    def test_order_does_not_count(self, resnet18: StateDict, tmp_path: Path) -> None:
        """The number of classes is found whatever order a file lists its tensors in."""
        shuffled = dict(sorted(resnet18.items()))
        assert list(shuffled)[-1] != "fc.bias"
        assert holds(load_spec("torchvision:resnet18", saved(shuffled, tmp_path / "weights.pt")), resnet18)

    def test_missing(self, tmp_path: Path) -> None:
        """The path and the reason are named."""
        with pytest.raises(SpecError, match=r"nowhere\.pt.*No such file"):
            load_spec(TINY, tmp_path / "nowhere.pt")

    def test_a_folder(self, tmp_path: Path) -> None:
        """So is what is no file."""
        with pytest.raises(SpecError, match="directory"):
            load_spec(TINY, tmp_path)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\0",
            b"no weights",
            b"PK\3\4" + bytes(40),
            b"\x80\2}",
            b"\x80\2.",
            b"\xff" * 100,
            b"(dp0\n.",
            b"cos\nsystem\n",
        ],
    )
    def test_garbage(self, tmp_path: Path, content: bytes, suffix: str) -> None:
        """Whatever the bytes, the answer names the file."""
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        with pytest.raises(SpecError, match=f"weights{suffix}"):
            load_spec(TINY, path)

    def test_cut_short(self, tmp_path: Path) -> None:
        """A download that broke off anywhere is refused, in each of the file formats."""
        state = tiny.tiny().module.state_dict()
        torch.save(state, tmp_path / "new.pt")
        torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        save_file(state, tmp_path / "weights.safetensors")
        for path in list(tmp_path.iterdir()):
            whole = path.read_bytes()
            broken = path.with_name(f"broken{path.suffix}")
            for end in range(0, len(whole) - 1, len(whole) // 60):
                broken.write_bytes(whole[:end])
                with pytest.raises(SpecError, match="broken"):
                    load_spec(TINY, broken)

    @pytest.mark.parametrize(
        "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
    )
    def test_a_pickle_with_code_does_not_run(self, tmp_path: Path, write: Callable[[object, Path], object]) -> None:
        """Weights are data: a file that would call something is refused, and nothing is called."""
        witness = tmp_path / "witness"

        class Hostile:
            def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
                return Path.touch, (witness,)

        write({"state_dict": Hostile()}, tmp_path / "weights.pt")
        with pytest.raises(SpecError, match=r"weights\.pt"):
            load_spec(TINY, tmp_path / "weights.pt")
        assert not witness.exists()

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param([1, 2], id="list"),
            pytest.param(torch.zeros(3), id="tensor"),
            pytest.param({"weight": 3.0}, id="numbers"),
            pytest.param({"state_dict": [torch.zeros(3)]}, id="list in a checkpoint"),
            pytest.param({"net": {"weight": torch.zeros(3)}}, id="under another key"),
            pytest.param(None, id="none"),
        ],
    )
    def test_without_a_state_dict(self, tmp_path: Path, content: object) -> None:
        """What is readable but no state dict is told what was wanted."""
        with pytest.raises(SpecError, match="wanted a state dict, alone or under one of"):
            read_state_dict(saved(content, tmp_path / "weights.pt"))

    @pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:resnet18", TINY])
    @pytest.mark.parametrize(
        "content",
        [
            pytest.param({}, id="empty"),
            pytest.param({"steps": torch.tensor(3)}, id="a scalar"),
            pytest.param({"fc.weight": torch.zeros(10, 512), "steps": torch.tensor(3)}, id="a scalar last"),
            pytest.param({3: torch.zeros(10)}, id="no names"),
            pytest.param({"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}, id="a head alone"),
        ],
    )
    def test_of_no_network(self, tmp_path: Path, content: dict[Any, Tensor], spec: str) -> None:
        """A state dict that no network has is refused, not run into."""
        with pytest.raises(SpecError):
            load_spec(spec, saved(content, tmp_path / "weights.pt"))

    def test_of_another_network(self, resnet18: StateDict, tmp_path: Path) -> None:
        """The message says which SPEC they do not fit, and why."""
        path = saved(resnet18, tmp_path / "weights.pt")
        for spec in ("torchvision:resnet50", "timm:resnet50", TINY):
            with pytest.raises(SpecError, match=f"do not fit {spec}.*(size mismatch|Missing key)"):
                load_spec(spec, path)


class TestTorchvision:
    def test_a_file_of_ones_own_says_nothing_of_its_images(self, resnet18: StateDict, tmp_path: Path) -> None:
        """A bare architecture with a file: neither preprocessing nor class names are known."""
        parts = load_spec("torchvision:resnet18", saved(resnet18, tmp_path / "weights.pt"))
        assert parts.preprocess is None
        assert parts.class_names is None

    def test_a_weights_entry_says_how(self, resnet18_1000: StateDict, tmp_path: Path) -> None:
        """With the entry's name, its preprocessing and class names hold for the file, too."""
        parts = load_spec("torchvision:resnet18.IMAGENET1K_V1", saved(resnet18_1000, tmp_path / "weights.pt"))
        entry = models.ResNet18_Weights.IMAGENET1K_V1
        assert holds(parts, resnet18_1000)
        assert parts.preprocess == Preprocess.from_torchvision(entry.transforms())
        assert parts.class_names == tuple(entry.meta["categories"])

    def test_entries_differ(self, tmp_path: Path) -> None:
        """Two entries of one architecture have preprocessings of their own."""
        path = saved(models.mobilenet_v2().state_dict(), tmp_path / "weights.pt")
        first, second = (load_spec(f"torchvision:mobilenet_v2.IMAGENET1K_V{n}", path).preprocess for n in (1, 2))
        assert first is not None
        assert second is not None
        assert (first.resize, second.resize) == (256, 232)

    def test_class_names_are_one_a_logit(self, resnet18: StateDict, tmp_path: Path) -> None:
        """A network of ten classes does not get the entry's thousand names."""
        parts = load_spec("torchvision:resnet18.IMAGENET1K_V1", saved(resnet18, tmp_path / "weights.pt"))
        assert parts.class_names is None or len(parts.class_names) == 10

    @pytest.mark.parametrize("name", ["regnet_y_400mf", "shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5"])
    def test_other_architectures_of_seven_classes(self, tmp_path: Path, name: str) -> None:
        """The number of classes is found for any of torchvision's classifiers."""
        state = models.get_model(name, weights=None, num_classes=7).state_dict()
        assert holds(load_spec(f"torchvision:{name}", saved(state, tmp_path / "weights.pt")), state)

    def test_no_such_model(self) -> None:
        """The name is repeated."""
        with pytest.raises(SpecError, match="no model 'resnet19'"):
            load_spec("torchvision:resnet19")

    def test_no_such_weights(self) -> None:
        """Those that there are, are listed."""
        with pytest.raises(SpecError, match="resnet50 has no weights 'V9', it has IMAGENET1K_V1, IMAGENET1K_V2"):
            load_spec("torchvision:resnet50.V9")

    @pytest.mark.parametrize("name", ["raft_small", "fcn_resnet50", "fasterrcnn_resnet50_fpn"])
    def test_models_of_other_tasks(self, resnet18: StateDict, tmp_path: Path, name: str, no_network: None) -> None:
        """Torchvision has more than classifiers; they are refused in words."""
        with pytest.raises(SpecError):
            load_spec(f"torchvision:{name}", saved(resnet18, tmp_path / "weights.pt"))

    def test_weights_that_cannot_be_downloaded(self, no_network: None) -> None:
        """Without a network the advice is to give a file."""
        with pytest.raises(SpecError, match="--weights"):
            load_spec("torchvision:resnet18")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache, and a proxy that refuses every connection at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


class TestTimm:
    def test_a_file_of_ones_own_says_nothing_of_its_images(self, tmp_path: Path) -> None:
        """A bare architecture with a file of three classes."""
        state = timm.create_model("resnet18", num_classes=3).state_dict()
        parts = load_spec("timm:resnet18", saved(state, tmp_path / "weights.pt"))
        assert holds(parts, state)
        assert parts.preprocess is None
        assert parts.class_names is None

    def test_a_tag_says_how(self, tmp_path: Path) -> None:
        """With the tag its preprocessing holds for the file, too."""
        state = timm.create_model("mobilenetv3_small_050.lamb_in1k").state_dict()
        parts = load_spec("timm:mobilenetv3_small_050.lamb_in1k", saved(state, tmp_path / "weights.pt"))
        assert holds(parts, state)
        assert parts.preprocess == Preprocess(
            resize=256,
            crop=(224, 224),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            interpolation="bicubic",
        )

    def test_squashing_is_not_what_we_do(self, tmp_path: Path) -> None:
        """A crop mode that cannot be expressed leaves the preprocessing unknown rather than wrong."""
        name = next(n for n in timm.list_pretrained("vit*") if timm.get_pretrained_cfg(n).crop_mode == "squash")
        config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
        from scoring.spec import _timm_preprocess

        assert config["crop_mode"] == "squash"
        assert _timm_preprocess(config) is None

    def test_no_such_model(self) -> None:
        """The name is repeated."""
        with pytest.raises(SpecError, match="no model 'resnet19'"):
            load_spec("timm:resnet19")

    def test_no_such_tag(self, tmp_path: Path) -> None:
        """An architecture that exists with a tag that does not."""
        state = timm.create_model("resnet18", num_classes=3).state_dict()
        with pytest.raises(SpecError, match="nonsense"):
            load_spec("timm:resnet18.nonsense", saved(state, tmp_path / "weights.pt"))


def factory_file(folder: Path, code: str, name: str = "model.py") -> str:
    """A file of code; its SPEC, for the function `make`."""
    (folder / name).write_text(f"import torch\nfrom torch import nn\n{code}\n")
    return f"{folder / name}:make"


class TestFactories:
    @pytest.mark.parametrize("spec", [TINY, "tests.factories.tiny:tiny"])
    def test_from_a_file_and_from_a_module(self, spec: str) -> None:
        """Both give module, preprocessing and class names."""
        parts = load_spec(spec)
        assert digest_tensors(parts.module) == digest_tensors(tiny.tiny().module)
        assert parts.preprocess == tiny.PREPROCESS
        assert parts.class_names == tiny.CLASSES

    def test_a_path_may_be_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """To the folder where the command runs."""
        factory_file(tmp_path, "def make(): return nn.Linear(2, 3)")
        monkeypatch.chdir(tmp_path)
        assert load_spec("model.py:make").module.out_features == 3

    def test_a_bare_module_says_nothing_of_its_images(self, tmp_path: Path) -> None:
        """Preprocessing and class names are unknown."""
        parts = load_spec(factory_file(tmp_path, "make = lambda: nn.Linear(2, 3)"))
        assert isinstance(parts.module, nn.Linear)
        assert parts.preprocess is None
        assert parts.class_names is None

    def test_takes_weights(self, tmp_path: Path) -> None:
        """A file's weights replace those of the factory."""
        state = {name: torch.ones_like(tensor) for name, tensor in tiny.tiny().module.state_dict().items()}
        assert holds(load_spec(TINY, saved(state, tmp_path / "weights.pt")), state)

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        """Two folders with a `model.py` each do not meet."""
        specs = []
        for outputs in (3, 4):
            folder = tmp_path / str(outputs)
            folder.mkdir()
            specs.append(factory_file(folder, f"def make(): return nn.Linear(2, {outputs})"))
        assert [load_spec(spec).module.out_features for spec in specs] == [3, 4]

    def test_a_file_that_changed_is_read_again(self, tmp_path: Path) -> None:
        """Its code is that of the moment."""
        load_spec(factory_file(tmp_path, "def make(): return nn.Linear(2, 3)"))
        assert load_spec(factory_file(tmp_path, "def make(): return nn.Linear(2, 40)")).module.out_features == 40

    @pytest.mark.parametrize("spec", ["", "resnet50", ":", "a:", ":b", "torchvision:", "model.py"])
    def test_no_spec_at_all(self, spec: str) -> None:
        """The forms that there are, are listed."""
        with pytest.raises(SpecError, match=r"wanted torchvision:NAME, timm:NAME, FILE\.py:FACTORY or MODULE:FACTORY"):
            load_spec(spec)

    @pytest.mark.parametrize(
        "spec",
        [
            "nowhere/model.py:make",
            "no_such_module:make",
            "torch.no_such_module:make",
            ".relative:make",
            "a b:make",
            "a..b:c",
        ],
    )
    def test_no_such_origin(self, spec: str) -> None:
        """A file or module that is not there is named."""
        with pytest.raises(SpecError) as caught:
            load_spec(spec)
        assert spec in str(caught.value)

    @pytest.mark.parametrize("code", ["", "make = 3", "def Make(): pass"])
    def test_no_such_function(self, tmp_path: Path, code: str) -> None:
        """Neither a missing name nor one that cannot be called is a factory."""
        with pytest.raises(SpecError, match="has no function 'make'"):
            load_spec(factory_file(tmp_path, code))

    @pytest.mark.parametrize(
        ("made", "named"),
        [
            ("3", "int"),
            ("None", "NoneType"),
            ("nn.Linear", "type"),
            ("(nn.Linear(2, 3), None)", "tuple"),
            ("{}", "dict"),
        ],
    )
    def test_nonsense(self, tmp_path: Path, made: str, named: str) -> None:
        """A factory that makes no network is told what it made."""
        with pytest.raises(SpecError, match=f"wanted an nn.Module or ClassifierParts, found {named}"):
            load_spec(factory_file(tmp_path, f"def make(): return {made}"))

    @pytest.mark.parametrize(
        "parts",
        [
            "ClassifierParts(3)",
            "ClassifierParts(nn.Linear(2, 3), 'resize 256')",
            "ClassifierParts(nn.Linear(2, 3), None, 7)",
            "ClassifierParts(nn.Linear(2, 3), None, 'abc')",
        ],
    )
    def test_nonsense_within_the_parts(self, tmp_path: Path, parts: str) -> None:
        """Each part is looked at: a module, a preprocessing, names."""
        code = f"from scoring.spec import ClassifierParts\ndef make(): return {parts}"
        with pytest.raises(SpecError):
            load_spec(factory_file(tmp_path, code))

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            pytest.param("def make(:", "invalid syntax", id="syntax error"),
            pytest.param("1 / 0", "division by zero", id="exception at import"),
            pytest.param("import no_such_package", "no_such_package", id="missing package"),
            pytest.param(
                "def make(): raise KeyError('no weights here')", "no weights here", id="exception when called"
            ),
            pytest.param("def make(depth): return nn.Linear(2, depth)", "depth", id="wants arguments"),
        ],
    )
    def test_code_that_fails(self, tmp_path: Path, code: str, reason: str) -> None:
        """The code behind a SPEC is its user's: what is wrong with it is said in one line that names the SPEC."""
        spec = factory_file(tmp_path, code)
        with pytest.raises(SpecError, match=reason) as caught:
            load_spec(spec)
        assert spec in str(caught.value)
