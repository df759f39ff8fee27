"""Heads found by running real networks, features that give back the logits, and digests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from scoring.backbone import find_head
from scoring.classifier import Classifier, digest_tensors, load_classifier, pick_device
from scoring.errors import HeadNotFoundError, LineOodError, PreprocessError, SpecError
from scoring.preprocess import Preprocess
from scoring.spec import ClassifierParts
from tests.factories.tiny import PREPROCESS, tiny

CPU = torch.device("cpu")


def preprocess_of(side: int) -> Preprocess:
    return Preprocess(resize=side, crop=(side, side), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def noise(count: int, side: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=random)


class Wrapped(nn.Module):
    """A linear network with something behind its head; the large bias makes every logit positive."""

    def __init__(self, behind: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * 8 * 8, 6)
        self.fc = nn.Linear(6, 4)
        nn.init.constant_(self.fc.bias, 30.0)
        self.behind = behind

    def forward(self, images: Tensor) -> object:
        return self.behind(self.fc(self.stem(images.flatten(1)).relu()))


def bind(module: nn.Module, side: int = 8) -> Classifier:
    return Classifier(module, preprocess_of(side), CPU)


NETWORKS = {
    "resnet18": ("fc", 64),
    "mobilenet_v3_small": ("classifier.3", 64),
    "densenet121": ("classifier", 64),
    "efficientnet_b0": ("classifier.1", 64),
    "swin_t": ("head", 64),
    "vit_b_16": ("heads.head", 224),
}


class TestHead:
    @pytest.mark.parametrize(("name", "found"), NETWORKS.items(), ids=NETWORKS)
    def test_is_found_by_running_the_network(self, name: str, found: tuple[str, int]) -> None:
        """Whatever it is called; and features W^T + b are the network's own logits."""
        head_name, side = found
        torch.manual_seed(0)
        module = models.get_model(name, weights=None, num_classes=7)
        classifier = bind(module, side)
        assert find_head(module, torch.zeros(1, 3, side, side)).layer is module.get_submodule(head_name)
        pixels = noise(2, side)
        features, logits = classifier.forward(pixels)
        weight, bias = classifier.head
        assert weight.shape == (7, features.shape[1])
        torch.testing.assert_close(features @ weight.T + bias, logits, rtol=1e-4, atol=1e-5)
        with torch.inference_mode():
            torch.testing.assert_close(module(classifier.backbone.normalise(pixels)), logits)

    def test_without_bias_has_zeros_for_one(self) -> None:
        """A linear layer without bias is a head all the same."""
        classifier = bind(nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False)))
        assert classifier.head.bias.tolist() == [0.0] * 5

    def test_is_the_last_of_two_that_answer_alike(self) -> None:
        """An identity behind the head does not hide it."""
        module = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Identity(), nn.Dropout(0.5))
        assert find_head(module.eval(), torch.zeros(1, 3, 8, 8)).layer is module[1]

    def test_may_be_wrapped(self) -> None:
        """The head is found at any depth, with its features in two dimensions."""
        module = nn.Sequential(Wrapped(lambda logits: logits))
        assert bind(module).forward(noise(3, 8))[0].shape == (3, 6)

    @pytest.mark.parametrize(
        ("behind", "seen"),
        [
            pytest.param(lambda z: z.softmax(1), r"a tensor of shape \(4, 4\)", id="softmax"),
            pytest.param(lambda z: {"logits": z}, "dict", id="dict"),
            pytest.param(lambda z: (z, z), "tuple", id="tuple"),
            pytest.param(lambda z: z[:, :3], r"a tensor of shape \(4, 3\)", id="other shape"),
            pytest.param(lambda z: z[None], r"a tensor of shape \(1, 4, 4\)", id="other rank"),
            pytest.param(lambda z: z / 2, r"a tensor of shape \(4, 4\)", id="temperature"),
            pytest.param(lambda _: None, "NoneType", id="nothing"),
        ],
    )
    def test_is_refused_where_the_output_is_another(self, behind: Callable[[Tensor], object], seen: str) -> None:
        """The message says what was returned and which linear layers ran."""
        with pytest.raises(HeadNotFoundError, match=rf"it returned {seen}.*stem -> \(4, 6\), fc -> \(4, 4\)"):
            bind(Wrapped(behind))

    def test_is_refused_where_the_output_is_a_convolution(self) -> None:
        """SqueezeNet classifies by a convolution: no linear layer runs at all."""
        with pytest.raises(HeadNotFoundError, match="these linear layers ran: none"):
            bind(models.squeezenet1_1(weights=None), 64)

    @pytest.mark.parametrize(
        "behind",
        [
            pytest.param(lambda z: z.div_(2), id="temperature"),
            pytest.param(lambda z: z.sub_(z.logsumexp(1, keepdim=True)), id="log softmax"),
            pytest.param(lambda z: z.clamp_(max=1), id="clamp"),
        ],
    )
    def test_is_refused_where_the_output_is_changed_in_place(self, behind: Callable[[Tensor], Tensor]) -> None:
        """An in-place operation behind the head makes other logits, though in the same memory."""
        with pytest.raises(HeadNotFoundError):
            bind(Wrapped(behind))

    def test_is_refused_where_it_is_right_by_chance(self) -> None:
        """A ReLU behind the head that happens to change nothing on one image changes others."""
        torch.manual_seed(0)
        module = Wrapped(torch.relu)
        with torch.no_grad():
            module.stem.bias.zero_()
            module.fc.weight.mul_(1000)
            module.fc.bias.fill_(0.1)
            module.stem.weight.copy_(module.stem.weight - module.stem.weight.mean(1, keepdim=True))
        with pytest.raises(HeadNotFoundError):
            bind(module)


class TestClassifier:
    def test_is_in_evaluation_mode(self) -> None:
        """Dropout and batch statistics do not make scores of the day, and no gradient is kept."""
        module = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.BatchNorm1d(192), nn.Linear(192, 5)).train()
        classifier = bind(module)
        first, second = (classifier.forward(noise(4, 8))[1] for _ in range(2))
        assert torch.equal(first, second)
        assert not first.requires_grad
        assert module[2].num_batches_tracked == 0

    def test_recovers_from_a_forward_pass_that_failed(self) -> None:
        """What was caught before an error is not taken for the next batch's features."""
        classifier = bind(Wrapped(lambda logits: logits))
        before = classifier.forward(noise(2, 8))[0]
        with pytest.raises(RuntimeError):
            classifier.forward(noise(2, 9))
        assert torch.equal(classifier.forward(noise(2, 8))[0], before)

    def test_features_are_what_the_head_reads_now(self) -> None:
        """Two batches give their own features, whatever was caught before."""
        classifier = load_classifier(tiny(), CPU)
        pixels = noise(6, 16)
        whole = classifier.forward(pixels)[0]
        parts = torch.cat([classifier.forward(part)[0] for part in pixels.split(2)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("answer", [0, 1])
    def test_features_are_those_of_the_answer(self, answer: int) -> None:
        """Where the head runs twice, on a picture and on its mirror image, the features belong to the logits."""
        module = Wrapped(lambda logits: logits)
        whole = module.forward
        module.forward = lambda images: [whole(images), whole(images.flip(3))][answer]  # type: ignore[method-assign]
        classifier = bind(module)
        features, logits = classifier.forward(noise(3, 8))
        weight, bias = classifier.head
        torch.testing.assert_close(features @ weight.T + bias, logits)

    def test_head_may_be_called_by_keyword(self) -> None:
        """`self.fc(input=h)` is a call like any other."""

        class Keyword(Wrapped):
            def forward(self, images: Tensor) -> Tensor:
                return self.fc(input=self.stem(images.flatten(1)).relu())

        assert bind(Keyword(lambda logits: logits)).forward(noise(3, 8))[0].shape == (3, 6)

    def test_input_of_another_size_than_the_network_reads(self) -> None:
        """A crop that does not fit the network is its user's mistake, not a defect."""
        with pytest.raises(LineOodError, match="9"):
            bind(Wrapped(lambda logits: logits), side=9)

    def test_network_in_another_precision(self) -> None:
        """Half precision is not what is calibrated and served: said in words, not in a traceback."""
        with pytest.raises(LineOodError):
            bind(Wrapped(lambda logits: logits).half())


class TestLoading:
    def test_takes_the_classifiers_own_preprocessing(self) -> None:
        """Where it is known and no other is given."""
        assert load_classifier(tiny(), CPU).preprocess == PREPROCESS

    def test_takes_another_where_given(self) -> None:
        """The artifact's, or the command line's, goes before the classifier's own."""
        assert load_classifier(tiny(), CPU, preprocess_of(16)).preprocess == preprocess_of(16)

    @pytest.mark.parametrize("names", [("a", "b"), tuple("abcdef"), ()])
    def test_class_names_are_one_a_logit(self, names: tuple[str, ...]) -> None:
        """Both numbers are named where they differ."""
        with pytest.raises(SpecError, match=f"{len(names)} class names and has 5 outputs"):
            load_classifier(ClassifierParts(tiny().module, PREPROCESS, names), CPU)

    def test_never_guesses(self) -> None:
        """Unknown preprocessing is refused with the flags that give it."""
        with pytest.raises(PreprocessError, match="--crop, --mean, --std"):
            load_classifier(ClassifierParts(tiny().module), CPU)


class Named(nn.Module):
    """A parameter and a buffer under names of choice."""

    def __init__(self, parameter: str = "weight", buffer: str = "scale") -> None:
        super().__init__()
        self.register_parameter(parameter, nn.Parameter(torch.arange(6.0).reshape(2, 3)))
        self.register_buffer(buffer, torch.ones(2, dtype=torch.bfloat16))


class TestDigest:
    def test_is_this(self) -> None:
        """Artifacts that exist stay valid: the digest of known tensors is known."""
        assert digest_tensors(Named()) == "de4c2641d4f9d07ca734ff6d337d8db5ccd3a1d4df401771de7bfaa9b4e8a3d7"

    def test_is_the_same_after_a_reload(self) -> None:
        """A fresh network with the same state dict has the same digest."""
        module, other = (models.resnet18(weights=None) for _ in range(2))
        assert digest_tensors(module) != digest_tensors(other)
        other.load_state_dict(module.state_dict())
        assert digest_tensors(module) == digest_tensors(other)

    def test_is_about_values_only(self) -> None:
        """Mode, gradients, memory layout and use do not count."""
        module = tiny().module
        before = digest_tensors(module)
        module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        module(torch.zeros(1, 3, 16, 16))
        assert digest_tensors(module) == before
        assert load_classifier(tiny(), CPU).digest() == before

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_is_the_same_on_the_gpu(self) -> None:
        """An artifact calibrated on a GPU serves on a CPU."""
        assert digest_tensors(tiny().module.cuda()) == digest_tensors(tiny().module)

    def test_changes_with_every_tensor(self) -> None:
        """One changed number in any parameter or buffer, the batch norm's running statistics included."""
        before = digest_tensors(tiny().module)
        for name in tiny().module.state_dict():
            changed = tiny().module
            with torch.no_grad():
                changed.state_dict()[name].view(-1)[-1] += 1
            assert digest_tensors(changed) != before, name

    def test_changes_with_the_last_bit(self) -> None:
        """The smallest change of one weight."""
        changed = tiny().module
        with torch.no_grad():
            bias = changed[7].bias
            bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
        assert digest_tensors(changed) != digest_tensors(tiny().module)

    def test_changes_with_a_name(self) -> None:
        """The same numbers under another name are another network."""
        digests = {digest_tensors(Named(*names)) for names in [("weight", "scale"), ("w", "scale"), ("weight", "s")]}
        assert len(digests) == 3

    def test_changes_with_shape_and_type(self) -> None:
        """The same bytes in another shape, or read as another type."""
        reshaped, retyped = Named(), Named()
        reshaped.weight.data = reshaped.weight.data.reshape(3, 2)
        retyped.scale = retyped.scale.view(torch.float16)
        assert len({digest_tensors(module) for module in (Named(), reshaped, retyped)}) == 3

    def test_takes_tensors_of_any_kind(self) -> None:
        """Scalars, empty ones, booleans and transposed ones."""
        module = Named()
        for name, tensor in {
            "scalar": torch.tensor(3),
            "empty": torch.zeros(0, 4),
            "flags": torch.tensor([True, False]),
            "turned": torch.arange(6.0).reshape(2, 3).T,
        }.items():
            module.register_buffer(name, tensor)
        before = digest_tensors(module)
        module.turned = module.turned.contiguous()
        assert digest_tensors(module) == before != digest_tensors(Named())


class TestDevice:
    def test_auto_is_the_gpu_where_there_is_one(self) -> None:
        """And the CPU otherwise."""
        assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")

    def test_by_name(self) -> None:
        """What is named is taken."""
        assert pick_device("cpu") == CPU

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("name", ["cuda", "cuda:1"])
    def test_a_gpu_that_is_not_there(self, name: str) -> None:
        """Asked for by name, it is not silently replaced."""
        with pytest.raises(SpecError, match=f"'{name}': no GPU"):
            pick_device(name)

    @pytest.mark.parametrize("name", ["", "gpu", "CPU", "cpu0", "meta"])
    def test_nonsense(self, name: str) -> None:
        """No such device, or none that computes."""
        with pytest.raises(SpecError, match="wanted auto, cpu or cuda"):
            pick_device(name)
