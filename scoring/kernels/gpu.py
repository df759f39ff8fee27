"""LINe's masked logits on a GPU: one Triton kernel that makes the weight mask while it passes over W.

    z[i, k] = Σ_j hc[i, j] · W[k, j] · 1[W[k, j] >= floors[r_i, j]] + b[k]          r_i: routed class of image i

B images, K classes, D features. `floors` stands for both masks (see `scoring.line.weight_floors`): it is +inf where
the activation mask removes a feature, and W is finite. Sums are float32 on the ordinary cores, never TF32: a product
decided element by element is no matrix product.

The tile, and why. It follows from counts and from the machine code that Triton makes for an H200; it was not timed.

* An element costs a comparison and a multiply-add that obeys it, provided that h, W and the floor are in registers.
  So a thread keeps 8 images and 8 classes at one feature: 24 loads feed 64 elements, and the 64 running sums are what
  512 threads a program leave room for (128 registers each).
* 16 warps share a program and fill the registers of a multiprocessor. They are dealt out over groups of 8 images,
  over groups of 8 classes and, what is left of them, over features; the sums over features are joined once, at the end.
  Warps of one group load the same h and floors, or the same W, which the L1 cache holds. From L2 come then
  4·B·K·D·(1/images + 2/classes) bytes for a tile of images x classes: at B = 64, K = 1000, D = 2048 and 16 x 32
  that is 66 MB, where W alone read once an image is 524 MB.
* A large tile makes few programs, and a small batch would leave multiprocessors idle. The smallest tile whose programs
  run all at once is taken. K = 1000 and the batches 1, 2, 4, ... 128 make 125 to 128 programs for 132
  multiprocessors, the tile growing with the batch. Up to batch 8 each row of W is read by one program only.
* A group that would stick out past the last image or class is moved back inside. What it then shares with its
  neighbour is computed twice, to the same bits, and written twice; so rows need no masks.

Nothing is skipped where it is pruned: a warp could only where 32 features are pruned for all of its 8 images.
NaN features are not this kernel's business: where they meet a pruned weight they leave no trace. The classifier's
own logits show them.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float32
from torch import Tensor

from scoring.types import Classes, Head, WeightFloors

_WARPS = 16
_OWN = 8  # images, and classes, of one thread
_MULTIPROCESSORS = 132  # of an H200; another number changes the speed only
_GROUPS = ((1, 1), (2, 1), (2, 2), (2, 4), (4, 4))  # of images and of classes that a program's warps are dealt out over


class Tile(NamedTuple):
    """The share of (batch, class) that one program computes; all are powers of two."""

    own_images: int
    own_classes: int
    image_groups: int
    class_groups: int

    @property
    def lanes(self) -> int:
        """Features taken at a time: whatever threads are left."""
        return 32 * _WARPS // (self.image_groups * self.class_groups)

    def grid(self, batch: int, classes: int) -> tuple[int, int]:
        """Programs over the images, which come first so that neighbours read the same W, and over the classes."""
        images = self.own_images * self.image_groups
        return -(-batch // images), -(-classes // (self.own_classes * self.class_groups))


def choose_tile(batch: int, classes: int) -> Tile:
    """The smallest tile whose programs run all at once, or the largest that the batch and the classes fill."""
    own_images, own_classes = (min(_OWN, 1 << (size.bit_length() - 1)) for size in (batch, classes))
    tiles = [Tile(own_images, own_classes, *groups) for groups in _GROUPS]
    fitting = [
        tile
        for tile in tiles
        if (tile.image_groups - 1) * own_images < batch and (tile.class_groups - 1) * own_classes < classes
    ]
    for tile in fitting:
        images, rows = tile.grid(batch, classes)
        if images * rows <= _MULTIPROCESSORS:
            return tile
    return fitting[-1]


def masked_logits(
    clipped: Float32[Tensor, "batch feature"],
    routed: Classes,
    head: Head,
    floors: WeightFloors,
    out: Float32[Tensor, "batch class"],
) -> None:
    """Write the logits of the pruned head into `out`.

    Allocates nothing and never waits for the device, so a CUDA graph can capture it once it has run with the same
    number of images: the first time compiles for the tile of that batch. Triton wants a C compiler on the machine.

    Args:
        clipped: hc (batch, feature).
        routed: r (batch), each a class; they stay on the device.
        head: W (class, feature), finite, and b (class).
        floors: smallest weight kept (class, feature).
        out: z is written here (batch, class).

    Raises:
        ValueError: a tensor is not contiguous.
    """
    if not all(each.is_contiguous() for each in (clipped, routed, *head, floors, out)):
        raise ValueError("masked_logits takes contiguous tensors only")
    batch, classes = out.shape
    if batch == 0:
        return
    tile = choose_tile(batch, classes)
    with torch.cuda.device_of(clipped):  # Triton launches on the current device
        _masked_logits[tile.grid(batch, classes)](
            clipped,
            routed,
            head.weight,
            head.bias,
            floors,
            out,
            batch,
            classes=classes,
            features=clipped.shape[1],
            own_images=tile.own_images,
            own_classes=tile.own_classes,
            image_groups=tile.image_groups,
            class_groups=tile.class_groups,
            lanes=tile.lanes,
            num_warps=_WARPS,
            enable_fp_fusion=True,  # its default is about to change, and Triton warns where it is not given
        )


# One compiled kernel a tile, whatever the batch and the addresses, so that nothing is compiled while images wait. Nor
# would known addresses help: for the sake of wide loads Triton would pass features between threads, by shared memory.
@triton.jit(
    do_not_specialize=["batch"],
    do_not_specialize_on_alignment=["clipped", "routed", "weight", "bias", "floors", "out"],
)
@no_type_check  # Triton reads its source: no wrapper, no annotation but its own
def _masked_logits(
    clipped,
    routed,
    weight,
    bias,
    floors,
    out,
    batch,
    classes: tl.constexpr,
    features: tl.constexpr,
    own_images: tl.constexpr,
    own_classes: tl.constexpr,
    image_groups: tl.constexpr,
    class_groups: tl.constexpr,
    lanes: tl.constexpr,
):
    # Axes: own image, own class, image group, class group, lane. Triton deals threads out to the last axes first, and
    # groups times lanes are as many as there are: so what is "own" stays in one thread.
    image_group = tl.program_id(0) * image_groups + tl.arange(0, image_groups)
    class_group = tl.program_id(1) * class_groups + tl.arange(0, class_groups)
    first_image = tl.minimum(image_group * own_images, batch - own_images)
    first_class = tl.minimum(class_group * own_classes, classes - own_classes)
    i = tl.arange(0, own_images)[:, None, None, None] + first_image[None, None, :, None]  # (own, 1, groups, 1)
    k = tl.arange(0, own_classes)[None, :, None, None] + first_class[None, None, None, :]  # (1, own, 1, groups)
    # In 64 bits, where no sum wraps around, rows lie at distances that the compiler can write into the instruction.
    i, k = i.to(tl.int64), k.to(tl.int64)
    lane = tl.arange(0, lanes).to(tl.int64)[None, None, None, None, :]

    # Spread over all groups before loading, not after: each warp loads what it needs, and none waits for another.
    h_at = clipped + i[:, :, :, :, None] * features + lane
    h_at = tl.broadcast_to(h_at, (own_images, 1, image_groups, class_groups, lanes))
    floor_at = floors + tl.load(routed + i)[:, :, :, :, None] * features + lane
    floor_at = tl.broadcast_to(floor_at, (own_images, 1, image_groups, class_groups, lanes))
    w_at = weight + k[:, :, :, :, None] * features + lane
    w_at = tl.broadcast_to(w_at, (1, own_classes, image_groups, class_groups, lanes))

    total = tl.zeros((own_images, own_classes, image_groups, class_groups, lanes), tl.float32)
    for j in tl.range(0, features, lanes, loop_unroll_factor=2):  # unrolled, it spends half as much on addresses
        # True throughout where the lanes divide the features, which the compiler knows: then it drops the mask.
        live = (j + lane < features) | (features % lanes == 0)
        h = tl.load(h_at + j, mask=live)
        floor = tl.load(floor_at + j, mask=live, other=float("inf"))  # nothing is kept past the last feature
        w = tl.load(w_at + j, mask=live)
        # Chosen after the sum, not before the product: this becomes a multiply-add under a predicate.
        total = tl.where(w >= floor, tl.fma(h, w, total), total)
    z = tl.sum(total, 4) + tl.load(bias + k)  # (own images, own classes, image groups, class groups)
    tl.store(out + i * classes + k, z)
