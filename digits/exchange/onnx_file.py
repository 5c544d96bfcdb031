"""A trained network as one ONNX file, for any runtime of that format."""

from pathlib import Path

import torch
from torch import Tensor, nn

from digits.errors import DigitsError
from digits.network import DeepDigits, to_input

OPSET = 18  # what torch's exporter writes without converting; in ONNX Runtime since 1.14 (2023)


class _FromPixels(nn.Module):
    """The network with all that comes before and after it."""

    def __init__(self, network: DeepDigits) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(to_input(images))
        return logits, (logits / self.network.temperature).softmax(1)


def save_onnx(path: Path, network: DeepDigits) -> None:
    """Write ``network``, in evaluation mode on the CPU, to the one file ``path``, weights and all.

    Input ``images``: uint8 (N, 28, 28), 0 = paper, 255 = ink. Outputs: ``logits`` float32 (N, 10), and
    ``probabilities`` float32 (N, 10) at the network's temperature. Its metadata have ``temperature`` and ``labels``.

    Raises:
        DigitsError: onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter is written in it)
    except ImportError as error:
        raise DigitsError(f"--format onnx: {error.name} is not installed; pip install -e '.[onnx]'") from error
    program = torch.onnx.export(
        _FromPixels(network).eval(),
        (torch.zeros(2, 28, 28, dtype=torch.uint8),),  # of one image the exporter would make a constant
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits", "probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for part in [model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        part.ClearField("metadata_props")  # the exporter's notes for debugging, this machine's paths among them
    model.doc_string = "DeepDigits: images uint8 (N, 28, 28) of one digit each, 0 = paper, 255 = ink, as MNIST has them"
    labels = ",".join(str(digit) for digit in range(network.classes))
    onnx.helper.set_model_props(
        model, {"name": "DeepDigits", "temperature": f"{network.temperature}", "labels": labels}
    )
    path.write_bytes(model.SerializeToString())
