"""Exports a trained network as a single ONNX file."""

from pathlib import Path

import torch
from torch import Tensor, nn

from digits.errors import DigitsError
from digits.files import write_atomically
from digits.network import Network, to_input

OPSET = 18  # torch's exporter writes it without a conversion; ONNX Runtime has it since 1.14 (2023)


class _EndToEnd(nn.Module):
    """The network with its preprocessing and its softmax: from pixels to probabilities and logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(to_input(images))
        return (logits / self.network.temperature).softmax(1), logits


def save_onnx(path: Path, network: Network) -> None:
    """Write ``network`` to the single file ``path``, weights included.

    The model's input is ``images``, uint8 (N, 28, 28), 0 = paper, 255 = ink. Its outputs are ``probabilities``, float32
    (N, 10), at the network's temperature, and ``logits``, float32 (N, 10), in this order. Its metadata hold
    ``temperature`` and ``labels``.

    Args:
        path: the file.
        network: on the CPU, in evaluation mode.

    Raises:
        DigitsError: onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise DigitsError(f"{path}: {error.name} is not installed; pip install -e '.[onnx]'") from error
    program = torch.onnx.export(
        _EndToEnd(network).eval(),
        (torch.zeros(2, 28, 28, dtype=torch.uint8),),  # with a single image the exporter would fix the batch size at 1
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["probabilities", "logits"],
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for part in [model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        part.ClearField("metadata_props")  # debugging notes of the exporter, which contain paths of this machine
    model.doc_string = (
        f"{network.config_name}: images uint8 (N, 28, 28), 0 = paper, 255 = ink, one digit each as in MNIST"
    )
    labels = ",".join(str(digit) for digit in range(10))
    onnx.helper.set_model_props(
        model, {"name": network.config_name, "temperature": f"{network.temperature}", "labels": labels}
    )
    write_atomically(path, model.SerializeToString())
