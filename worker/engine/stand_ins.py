"""Modules that take a decoder layer's place in the model's own forward pass, and the forms of what layers return."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# The older models of transformers wrap what a layer returns.
_RETURN_TUPLES = frozenset({"BloomBlock", "CodeGenBlock", "FalconDecoderLayer", "GPTJBlock", "GPTNeoBlock", "MptBlock"})


def hidden_of(output: Any) -> Tensor:
    """Return the hidden states [batch, sequence, hidden] in what a decoder layer returns; Falcon's give a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def output_of(kind: type[nn.Module], hidden: Tensor) -> Any:
    """Return hidden states [batch, sequence, hidden] in the form in which decoder layers of `kind` return theirs."""
    return (hidden,) if kind.__name__ in _RETURN_TUPLES else hidden


class Given(nn.Module):
    """Stands in for all layers in front, whose output is known."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """Return the known state, whatever came in."""
        return self._hidden


class PassOn(nn.Module):
    """Stands in for a layer that need not run."""

    def forward(self, *_: Any, **__: Any) -> _Unread:
        """Return what nobody reads."""
        return _Unread()


class _Unread:
    """Stands in for hidden states that nobody reads: its own first element, where layers return tuples."""

    def __getitem__(self, _: int) -> _Unread:
        return self


class Before(nn.Module):
    """A block without attention in front of a decoder layer."""

    def __init__(self, block: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.block, self.layer = block, layer

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer makes of what the block made."""
        return self.layer(self.block(hidden_states), *args, **kwargs)


class After(nn.Module):
    """A block without attention behind a decoder layer."""

    def __init__(self, layer: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.layer, self.block = layer, block

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the block makes of what the layer made."""
        output = self.layer(hidden_states, *args, **kwargs)
        made: Tensor = self.block(hidden_of(output))
        return (made, *output[1:]) if isinstance(output, tuple) else made


class Alone(nn.Module):
    """A block without attention where no decoder layer is left."""

    def __init__(self, block: nn.Module, kind: type[nn.Module]) -> None:
        super().__init__()
        self.block, self._kind = block, kind

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """Return what the block makes, in the form of a layer of its kind."""
        return output_of(self._kind, self.block(hidden_states))
