"""A step, recorded once, as the body of a loop that runs on the device: many steps in one program."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch_xla
import torch_xla.debug.metrics as met
from torch import Tensor
from torch_xla.core import xla_builder
from torch_xla.core.xla_builder import Op

from digits.xla import internals


@dataclass(frozen=True)
class _Source:
    """Where the body gets one of its parameters from: which of the state, of the rows or of the constants."""

    kind: Literal["state", "rows", "constants"]
    index: int


class StepLoop:
    """``step(*row)``, which changes tensors in place, for one row after the other, without the host's help.

    The state are the tensors that a step changes. What else it reads, as the images, becomes an operand of the loop.
    The number of rounds is an operand too, so there is one program for any number.

    Args:
        step: one step. Of what it records, nothing may live on but the state: no gradient, no loss.
        state: gives the state, always in the same order.
    """

    def __init__(self, step: Callable[..., None], state: Callable[[], list[Tensor]]) -> None:
        self._step = step
        self._state = state

    def record(self, rows: Sequence[Tensor]) -> None:
        """Record the step and make the loop of it; nothing is computed, and the state stays as it is.

        Args:
            rows: as :meth:`__call__` will be given them.

        Raises:
            ValueError: the step cannot be the body of a loop.
        """
        # with data on the device, as placeholders that are still alive at the next sync end the process
        row = [torch.zeros(tensor.shape[:-1], dtype=tensor.dtype).to(tensor.device) for tensor in rows[:-1]]
        torch_xla.sync(wait=True)  # from here on the state is data on the device, whose handles change no more
        before = self._state()
        kinds = [(tensor.shape, tensor.dtype) for tensor in before]
        ids = [internals.id_of(tensor) for tensor in before]
        copies = [tensor.clone() for tensor in before]
        on_host = _host_operators()
        try:
            self._step(*row)
            if read := _host_operators() - on_host:  # once, and not in each round
                raise ValueError(f"the step reads values on the host: {', '.join(sorted(read))}")
            after = self._state()
            if kinds != [(tensor.shape, tensor.dtype) for tensor in after]:
                raise ValueError("a tensor of the state changes its shape or dtype in a step")
            if len(set(ids)) < len(ids):
                raise ValueError("two tensors of the state share their data")
            recorded = internals.Recorded(after)
            data = internals.data_of(after)
            if not data.keys() >= set(ids):
                raise ValueError("a tensor of the state is written without being read")
        except Exception:
            for tensor, copy in zip(self._state(), copies, strict=True):
                tensor.data = copy
            raise
        for tensor, i in zip(after, ids, strict=True):
            tensor.data = data[i]
        numbers = {i: recorded.parameter_of(tensor) for i, tensor in data.items()}
        sources = {numbers[i]: _Source("state", index) for index, i in enumerate(ids)}
        sources |= {recorded.parameter_of(tensor): _Source("rows", index) for index, tensor in enumerate(row)}
        sources.pop(-1, None)  # of a row that no step reads
        if (seed := numbers.get(internals.id_of_seed())) is not None:
            sources[seed] = _Source("rows", len(row))
        self._constants: list[Tensor] = []
        for number, value in recorded.parameters().items():
            if number not in sources:
                sources[number] = _Source("constants", len(self._constants))
                self._constants.append(value.to(rows[0].device))
        self._computation = self._build(recorded.computation, [sources[i] for i in range(len(sources))], rows)
        self._call(rows, torch.zeros(1, dtype=torch.int32, device=rows[0].device))  # what cannot be called is known now

    def __call__(self, rows: Sequence[Tensor], count: Tensor) -> None:
        """Take the first ``count`` steps.

        Args:
            rows: on the device, of shapes (..., K): the arguments of K steps, and last the seeds of their random
                numbers, int64 (K,). The step's number comes last, as on several hosts a batch can be shared out by its
                first dimension only.
            count: int32 (1,), up to K.
        """
        for tensor, new in zip(self._state(), self._call(rows, count), strict=True):
            tensor.data = new

    def _call(self, rows: Sequence[Tensor], count: Tensor) -> list[Tensor]:
        return internals.call(self._computation, [count, *self._state(), *rows, *self._constants])

    def _build(
        self, body: internals.Computation, sources: list[_Source], rows: Sequence[Tensor]
    ) -> internals.Computation:
        builder = xla_builder.create_builder("steps")
        state = self._state()
        first_row, first_constant = 1 + len(state), 1 + len(state) + len(rows)
        operands = [torch.zeros(1, dtype=torch.int32), *state, *rows, *self._constants]
        shapes = [xla_builder.mkshape(Op.from_torch_type(tensor.dtype), tuple(tensor.shape)) for tensor in operands]
        parameters = [xla_builder.mkparam(builder, i, shape) for i, shape in enumerate(shapes)]

        def goes_on(number: Op, count: Op, *_: Op) -> Op:
            return number < count

        def one_step(number: Op, *carried: Op) -> tuple[Op, ...]:
            start = {"state": 1, "rows": first_row, "constants": first_constant}
            operands = [carried[start[source.kind] + source.index] for source in sources]
            pairs = zip(sources, operands, strict=True)
            result = Op.call(body, [_at(op, number) if source.kind == "rows" else op for source, op in pairs])
            new = [result.get_tuple_element(i) for i in range(len(state))]
            following = number + Op.scalar(number.builder(), 1, xla_builder.Type.S32)
            return (following, carried[0], *new, *carried[first_row:])

        zero = Op.scalar(builder, 0, xla_builder.Type.S32)
        loop = Op.mkwhile([zero, parameters[0].reshape([]), *parameters[1:]], goes_on, one_step)
        return Op.tuple([loop.get_tuple_element(2 + i) for i in range(len(state))]).build("steps")


def _host_operators() -> Counter[str]:
    """How often which operators have been computed on the host, as torch_xla counts them."""
    return Counter({name: met.counter_value(name) for name in met.counter_names() if name.startswith("aten::")})


def _at(rows: Op, number: Op) -> Op:
    """``rows[..., number]``, ``number`` being a scalar of the program."""
    sizes = list(rows.shape().sizes)
    starts = [number.zeros_like()] * (len(sizes) - 1) + [number]
    return rows.dynamic_slice(starts, [*sizes[:-1], 1]).reshape(sizes[:-1])
