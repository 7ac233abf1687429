"""Ways to run a denoiser on a GPU, each for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from pti_pipeline.low_rank import PackedLoRA

Mode = Callable[[Any], AbstractContextManager[None]]
"""Makes a denoiser run in one way for a while."""
Make = Callable[[nn.Module, tuple[Tensor, ...]], Callable[..., Any]]
"""What :func:`torch.cuda.make_graphed_callables` does."""


@contextmanager
def compiled(model: Any, **options: Any) -> Iterator[None]:
    """Compile a denoiser of diffusers' block by block, as diffusers advises.

    Parameters
    ----------
    model : ModelMixin
    **options
        Of ``torch.compile``.
    """
    torch.compiler.reset()
    try:
        model.compile_repeated_blocks(dynamic=False, **options)
        yield
    finally:
        for module in model.modules():
            module._compiled_call_impl = None
        torch.compiler.reset()


@contextmanager
def replayed(model: nn.Module, make: Make | None = None) -> Iterator[None]:
    """Capture a model's next call, whose shapes all others have, as CUDA graphs; replay them.

    Parameters
    ----------
    model : nn.Module
        On a GPU.
    make : callable, optional
        Takes the place of :func:`torch.cuda.make_graphed_callables`.
    """
    plain, graphs = model.forward, list[Callable[..., Any]]()
    own = "forward" in vars(model)

    def forward(*args: Any, **kwargs: Any) -> Any:
        flat, spec = tree_flatten((args, kwargs))
        tensors = [each for each in flat if isinstance(each, Tensor)]
        if not graphs:
            call = Call(plain, [*_trained(model)], flat, spec)
            graphs.append((make or torch.cuda.make_graphed_callables)(call, _like(tensors)))
        return graphs[0](*tensors)

    model.forward = forward
    try:
        yield
    finally:
        graphs.clear()
        if own:
            model.forward = plain
        else:
            del model.forward


class Call(nn.Module):
    """A call with its tensors alone: what else it is given stays as it was.

    Parameters
    ----------
    forward : callable
    trained : list of Tensor
        Get gradients, beside the tensors given; they are no parameters of the model's.
    given : list
        Arguments, flat.
    spec : TreeSpec
        Of the arguments.
    """

    def __init__(
        self, forward: Callable[..., Any], trained: list[Tensor], given: list[Any], spec: TreeSpec
    ) -> None:
        super().__init__()
        self.plain, self.trained, self.given, self.spec = forward, trained, given, spec

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """Tell what is trained."""
        return iter(self.trained)

    def forward(self, *tensors: Tensor) -> Any:
        """Answer as the model would."""
        fresh = iter(tensors)
        flat = [next(fresh) if isinstance(each, Tensor) else each for each in self.given]
        args, kwargs = tree_unflatten(flat, self.spec)
        return self.plain(*args, **kwargs)


def _trained(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        if isinstance(module, PackedLoRA):
            yield from module.trained


def _like(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors of their own, which want gradients where these do."""
    return tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in tensors)


MODES: Mapping[str, Mode] = {
    "eager": nullcontext,
    "CUDA graphs": replayed,
    "compiled": compiled,
}
"""By their names in the rows."""
