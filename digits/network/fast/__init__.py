"""Faster ways to a network's logits, for those who ask for one by `accelerate`; DeepDigits has some, others none."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from digits.network.base import Network
from digits.network.deepdigits import DeepDigits
from digits.network.fast import cpu_inference, cpu_training

Forward = Callable[[Tensor], Tensor]  # images as Network.forward takes them -> logits


def accelerate(
    network: Network,
    device: torch.device | str,
    training: bool = False,
    compiled: bool = False,
    frozen: bool = False,
) -> Forward:
    """The fastest way to the logits of ``network`` on ``device``: a function that takes and gives what `forward` does.

    It works on the network's own weights, so it is asked for once and stays valid when they change, unless ``frozen``.
    The tests hold each of these forms against the plain network.

    Args:
        network: in training mode when the function is called with ``training``, else in evaluation mode.
        device: where the network is, or will be.
        training: for training steps; else for evaluation without gradients.
        compiled: train by what torch.compile makes of the parts between the convolutions; of DeepDigits on a CPU only.
        frozen: evaluate with the weights of now: what follows from them is computed once, not for each batch.
    """
    if torch.device(device).type != "cpu" or not isinstance(network, DeepDigits):
        return network.__call__  # on a GPU torch's own kernels are the fastest known
    if not training:
        kernels = cpu_inference.folded_kernels(network) if frozen else None
        return functools.partial(cpu_inference.forward, network, kernels=kernels)
    if not compiled:
        return functools.partial(cpu_training.forward, network)
    from digits.network.fast import compiled as compiled_training  # with torch's compiler, which is slow to import

    return functools.partial(compiled_training.forward, network)
