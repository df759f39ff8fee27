"""The Triton kernel against the reference and a float64 oracle: interpreted, compiled for an H200, and on a real GPU.

Triton reads TRITON_INTERPRET when it is imported, so everything that is interpreted runs in one child process.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from scoring import line
from scoring.types import Head
from tests.data import ROOT

triton = pytest.importorskip("triton", reason="Triton comes with the CUDA builds of torch only")

from scoring.kernels import gpu  # noqa: E402 - it imports Triton

RATES = (0.0, 0.1, 0.9, 1.0)
SHAPES = list(itertools.product((1, 3, 17), (1, 10, 33), (1, 5, 342, 100)))  # batch, class, feature
# One for every number of groups in a tile, with edges on all sides.
LARGE = [(9, 129, 513), (15, 531, 257), (33, 357, 129), (61, 531, 65), (130, 451, 33)]
GUARD = 7  # elements around each tensor of a case
UNTOUCHED = 12345.0


class Case(NamedTuple):
    """One call of the kernel, inside memory that shows when it is left: NaN, infinite weights, floors that keep all."""

    clipped: Tensor
    routed: Tensor
    weight: Tensor
    bias: Tensor
    floors: Tensor
    around: Tensor  # the memory that the result is written into, guards included

    @property
    def head(self) -> Head:
        return Head(self.weight, self.bias)

    @property
    def out(self) -> Tensor:
        return self.around[GUARD:-GUARD].view(len(self.clipped), len(self.bias))


def guarded(values: Tensor, guard: float) -> Tensor:
    """The same values in the middle of memory full of the guard."""
    around = torch.full((values.numel() + 2 * GUARD,), guard, dtype=values.dtype, device=values.device)
    inside = around[GUARD:-GUARD].view(values.shape)
    return inside.copy_(values)


def make_case(clipped: Tensor, routed: Tensor, weight: Tensor, bias: Tensor, floors: Tensor) -> Case:
    around = torch.full((len(clipped) * len(bias) + 2 * GUARD,), UNTOUCHED, device=clipped.device)
    return Case(
        guarded(clipped, math.nan),
        routed,
        guarded(weight, math.inf),
        guarded(bias, math.nan),
        guarded(floors, -math.inf),
        around,
    )


def random_case(seed: int, batch: int, classes: int, features: int, rate: float, device: str = "cpu") -> Case:
    """Of each column about `rate` is pruned, differently for each routed class; all floors are weights or infinite."""
    random = torch.Generator().manual_seed(seed)
    clipped = torch.randn(batch, features, generator=random).relu().clamp(max=1.5)
    routed = torch.randint(classes, (batch,), generator=random)
    weight, bias = torch.randn(classes, features, generator=random), torch.randn(classes, generator=random)
    trials = torch.full((classes, features), float(classes))
    pruned = torch.binomial(trials, torch.full_like(trials, rate), generator=random).long()  # (class, feature)
    steps = torch.cat([weight.sort(0).values, torch.full((1, features), math.inf)])
    floors = steps.gather(0, pruned).where(pruned > 0, -math.inf)
    return make_case(*(each.to(device) for each in (clipped, routed, weight, bias, floors)))


def tied_case() -> Case:
    """Every weight is the floor of both images' class or one float32 step below; each that is kept counts one."""
    random = torch.Generator().manual_seed(1)
    floor = torch.randn(100, generator=random) * 10.0 ** torch.randint(-3, 3, (100,), generator=random)
    below = torch.nextafter(floor, torch.tensor(-math.inf))
    kept = torch.rand(33, 100, generator=random) < 0.5
    floors = torch.randn(33, 100, generator=random)
    floors[[3, 20]] = floor
    clipped = torch.stack([1 / floor, 1 / floor.abs()])
    return make_case(clipped, torch.tensor([3, 20]), torch.where(kept, floor, below), torch.zeros(33), floors)


def infinite_case(keep_all: list[bool]) -> Case:
    """Images of one thread, each of which keeps all of the head or none of it."""
    case = random_case(2, len(keep_all), 10, 342, 0.5)
    keep = torch.tensor(keep_all)
    floors = torch.full_like(case.floors, -math.inf)
    floors[7] = math.inf
    return make_case(case.clipped, torch.where(keep, 2, 7), case.weight, case.bias, floors)


def broken_case() -> Case:
    """Two images of sixteen hold NaN and infinity."""
    case = random_case(3, 16, 33, 342, 0.1)
    case.clipped[4, 11], case.clipped[5] = math.nan, math.inf
    return case


def realistic_case() -> Case:
    """Masks as calibration makes them, of both kinds in one table, and images that route themselves."""
    random = torch.Generator().manual_seed(4)
    head = Head(torch.randn(10, 342, generator=random), torch.randn(10, generator=random))
    means = torch.randn(10, 342, generator=random, dtype=torch.float64).relu()
    contribution = line.signed_contribution(means, head.weight)
    thresholds = [line.weight_threshold(row, head.weight, 90) for row in contribution]
    floors = line.weight_floors(
        contribution, torch.tensor(thresholds, dtype=torch.float64), line.activation_mask(contribution, 10)
    )
    clipped = line.clip(torch.randn(17, 342, generator=random).relu(), 1.0)
    return make_case(clipped, line.routed_class(clipped, head), *head, floors)


def random_cases(shape: tuple[int, int, int], rates: tuple[float, ...]) -> list[Case]:
    return [random_case(seed, *shape, rate) for seed, rate in enumerate(rates)]


SOUND: dict[str, Callable[[], list[Case]]] = {
    **{str(shape): partial(random_cases, shape, RATES) for shape in SHAPES},
    **{str(shape): partial(random_cases, shape, (0.3,)) for shape in LARGE},
    "ties": lambda: [tied_case()],
    "infinite floors": lambda: [infinite_case([True, False, True, True, False, False, True, False])],
    "realistic": lambda: [realistic_case()],
}
ALL = SOUND | {"broken": lambda: [broken_case()], "no images": lambda: random_cases((0, 10, 5), (0.5,))}

INTERPRETED = """
import sys, jaxtyping, numpy, torch
numpy.seterr(invalid="ignore")  # inf - inf, of the broken images
with jaxtyping.install_import_hook("scoring", "tests.check_types"):  # the signatures are checked here, too
    from scoring.kernels import gpu
    from scoring.types import Head
cases = torch.load(sys.argv[1])
for clipped, routed, weight, bias, floors, _, out in cases:
    gpu.masked_logits(clipped, routed, Head(weight, bias), floors, out)
torch.save([around for *_, around, out in cases], sys.argv[2])
"""


@pytest.fixture(scope="session")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Case]]:
    """All cases, with what Triton's interpreter wrote into their memory."""
    folder = tmp_path_factory.mktemp("interpreted")
    cases = {name: build() for name, build in ALL.items()}
    torch.save([(*case, case.out) for each in cases.values() for case in each], folder / "cases")  # views stay views
    subprocess.run(
        [sys.executable, "-W", "error", "-c", INTERPRETED, folder / "cases", folder / "written"],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        check=True,
    )
    written = iter(torch.load(folder / "written"))
    return {name: [case._replace(around=next(written)) for case in each] for name, each in cases.items()}


def oracle(case: Case) -> np.ndarray:
    """The sums in float64, one image and class at a time; which weights are kept is decided on the float32 numbers."""
    h, routed, weight, bias, floors = (each.cpu().numpy() for each in case[:5])
    logits = np.empty((len(h), len(bias)))
    for i, r in enumerate(routed):
        for k, row in enumerate(weight):
            kept = row >= floors[r]
            logits[i, k] = np.dot(h[i, kept].astype(np.float64), row[kept].astype(np.float64)) + bias[k]
    return logits


def assert_equals(found: Tensor, wanted: np.ndarray | Tensor) -> None:
    """To 1e-4 of the largest of the logits."""
    wanted = torch.as_tensor(wanted).double()
    assert (found.double() - wanted).abs().max() <= 1e-4 * wanted.abs().max()


class TestInterpreted:
    @pytest.mark.parametrize("name", SOUND)
    def test_equals_the_oracle(self, interpreted: dict[str, list[Case]], name: str) -> None:
        """Whatever the shape, the pruned rate and the floors."""
        for case in interpreted[name]:
            assert_equals(case.out, oracle(case))

    @pytest.mark.parametrize("name", SOUND)
    def test_equals_the_reference(self, interpreted: dict[str, list[Case]], name: str) -> None:
        """It is a faster `scoring.line.masked_logits`."""
        for case in interpreted[name]:
            assert_equals(case.out, line.masked_logits(case.clipped, case.routed, case.head, case.floors))

    @pytest.mark.parametrize("name", ALL)
    def test_writes_nothing_but_the_result(self, interpreted: dict[str, list[Case]], name: str) -> None:
        """The memory before and after it stays as it was, though a program's tile may stick out."""
        for case in interpreted[name]:
            assert (torch.cat([case.around[:GUARD], case.around[-GUARD:]]) == UNTOUCHED).all()

    def test_keeps_a_weight_that_equals_its_floor(self, interpreted: dict[str, list[Case]]) -> None:
        """The comparison is decided to the last bit: the float32 next below is pruned."""
        (case,) = interpreted["ties"]
        kept = case.weight >= case.floors[3]
        assert 0.4 < kept.double().mean() < 0.6
        torch.testing.assert_close(case.out[0], kept.sum(1).float())
        torch.testing.assert_close(case.out[1], torch.where(kept, case.floors[3].sign(), 0).sum(1))

    def test_infinite_floors_keep_all_or_nothing(self, interpreted: dict[str, list[Case]]) -> None:
        """-inf gives the logits of the full head, +inf the bias to the bit, side by side in one thread."""
        (case,) = interpreted["infinite floors"]
        full = case.routed == 2
        assert_equals(case.out[full], torch.addmm(case.bias, case.clipped, case.weight.T)[full])
        assert torch.equal(case.out[~full], case.bias.expand(4, 10))

    def test_one_broken_image_leaves_its_neighbours_alone(self, interpreted: dict[str, list[Case]]) -> None:
        """NaN and infinity in two rows change no other row, not even in the same thread."""
        (case,) = interpreted["broken"]
        others = [i for i in range(16) if i not in {4, 5}]
        wanted = oracle(case._replace(clipped=case.clipped[others], routed=case.routed[others]))
        assert_equals(case.out[others], wanted)


class TestTile:
    def test_every_group_count_is_tested(self) -> None:
        """The large cases above meet all of them."""
        met = {gpu.choose_tile(batch, classes)[2:] for batch, classes, _ in LARGE}
        assert met == set(gpu._GROUPS)

    @pytest.mark.parametrize("classes", [1, 2, 7, 8, 9, 10, 100, 1000, 21841])
    def test_programs_cover_batch_and_classes(self, classes: int) -> None:
        """For every batch: all is computed, no program has nothing to do, and no thread's share exceeds the whole."""
        for batch in range(1, 300):
            tile = gpu.choose_tile(batch, classes)
            assert tile.own_images <= batch
            assert tile.own_classes <= classes
            images, rows = tile.own_images * tile.image_groups, tile.own_classes * tile.class_groups
            columns, lines = tile.grid(batch, classes)
            assert (columns - 1) * images < batch <= columns * images
            assert (lines - 1) * rows < classes <= lines * rows
            assert tile.lanes * tile.image_groups * tile.class_groups == 512

    @pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 32, 64, 128])
    def test_all_programs_run_at_once(self, batch: int) -> None:
        """On an H200 with 1000 classes nearly every multiprocessor has one."""
        assert 125 <= math.prod(gpu.choose_tile(batch, 1000).grid(batch, 1000)) <= 132


class TestRefuses:
    @pytest.mark.parametrize("which", ["clipped", "weight", "floors", "out"])
    def test_what_is_not_contiguous(self, which: str) -> None:
        """Before anything is launched, where it would read the wrong numbers."""
        case = random_case(0, 4, 4, 4, 0.5)
        tensors = {"clipped": case.clipped, "weight": case.weight, "floors": case.floors, "out": case.out}
        tensors[which] = tensors[which].T
        head = Head(tensors["weight"], case.bias)
        with pytest.raises(ValueError, match="contiguous"):
            gpu.masked_logits(tensors["clipped"], case.routed, head, tensors["floors"], tensors["out"])


class TestCompiled:
    @pytest.mark.parametrize(("batch", "classes", "features"), [(1, 1000, 2048), (64, 1000, 2048), (130, 10, 342)])
    def test_is_what_the_tile_was_chosen_for(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, batch: int, classes: int, features: int
    ) -> None:
        """For an H200 no register spills, threads exchange nothing but sums, and no tensor core rounds to TF32.

        The compiler refuses things that the interpreter accepts; this needs it, but no GPU.
        """
        from triton.backends.compiler import GPUTarget

        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        tile = gpu.choose_tile(batch, classes)
        constants = {"classes": classes, "features": features, "lanes": tile.lanes, **tile._asdict()}
        kinds = dict.fromkeys(gpu._masked_logits.arg_names, "*fp32")
        kinds |= {"routed": "*i64", "batch": "i32"} | dict.fromkeys(constants, "constexpr")
        source = triton.compiler.ASTSource(gpu._masked_logits, kinds, constants)
        options = {"num_warps": gpu._WARPS, "enable_fp_fusion": True}
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm
        assert not re.search("STL|LDL|MMA", made["sass"].replace("HFMA2.MMA", ""))  # that one loads constants
        before, _ = made["ttgir"].split("tt.reduce", 1)
        assert "convert_layout" not in before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestOnCuda:
    @pytest.mark.parametrize("rate", RATES)
    @pytest.mark.parametrize("shape", [*LARGE, (1, 1, 1), (17, 33, 342), (1, 1000, 2048), (64, 1000, 2048)])
    def test_equals_the_oracle(self, shape: tuple[int, int, int], rate: float) -> None:
        """The same as interpreted, guards included."""
        case = random_case(7, *shape, rate, device="cuda")
        gpu.masked_logits(case.clipped, case.routed, case.head, case.floors, case.out)
        assert_equals(case.out.cpu(), oracle(case))
        assert (torch.cat([case.around[:GUARD], case.around[-GUARD:]]) == UNTOUCHED).all()

    @pytest.mark.parametrize("name", ["ties", "infinite floors", "realistic"])
    def test_decides_as_the_oracle(self, name: str) -> None:
        """Ties and infinite floors, too."""
        case = make_case(*(each.cuda() for each in SOUND[name]()[0][:5]))
        gpu.masked_logits(case.clipped, case.routed, case.head, case.floors, case.out)
        assert_equals(case.out.cpu(), oracle(case))

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
    def test_neither_waits_nor_allocates(self) -> None:
        """Once compiled, a call leaves the host free and the memory as it is."""
        case = random_case(8, 64, 1000, 2048, 0.5, device="cuda")
        arguments = case.clipped, case.routed, case.head, case.floors, case.out
        gpu.masked_logits(*arguments)
        allocations = torch.cuda.memory_stats()["allocation.all.allocated"]
        torch.cuda.set_sync_debug_mode("error")
        try:
            gpu.masked_logits(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.cuda.memory_stats()["allocation.all.allocated"] == allocations

    @pytest.mark.parametrize("batch", [1, 8, 64])
    def test_a_graph_can_capture_it(self, batch: int) -> None:
        """Replayed, it reads the images and the routed classes that stand there then."""
        case, other = (random_case(seed, batch, 1000, 512, 0.5, device="cuda") for seed in (9, 10))
        arguments = case.clipped, case.routed, case.head, case.floors, case.out
        gpu.masked_logits(*arguments)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            gpu.masked_logits(*arguments)
        case.clipped.copy_(other.clipped)
        case.routed.copy_(other.routed)
        graph.replay()
        assert_equals(case.out.cpu(), oracle(case))
