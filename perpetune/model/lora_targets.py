"""Which modules and parameters of a model get an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from transformers.pytorch_utils import Conv1D

from perpetune.errors import PerpetuneError
from perpetune.model.parts import decoder_of

ALL_LINEAR = "all-linear"
WHERE = "params.yaml: train.lora.target_modules"
# Kernels of state spaces read the weights of these modules past their adapters, so peft refuses them.
STATE_SPACES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
PAST_ADAPTERS = "out_proj"
ADAPTABLE = (nn.Linear, Conv1D, nn.Embedding, nn.Conv1d)


@dataclass(frozen=True)
class LoraTargets:
    """Arguments of peft's LoraConfig. `frozen` are expert parameters that get no adapter."""

    modules: str | list[str]
    excluded: list[str]
    parameters: list[str]
    frozen: tuple[str, ...]

    def note(self) -> str | None:
        """What a user should know before the training; None for nothing."""
        if not self.frozen:
            return None
        return (
            f"the experts ({', '.join(self.frozen)}) stay as they are: `all-linear` adapts linear layers only; "
            "list them in train.lora.target_modules to adapt them too"
        )


def lora_targets(model: nn.Module, asked: tuple[str, ...] | str) -> LoraTargets:
    """The targets that `train.lora.target_modules` asks for.

    Names of modules are as in peft, names of expert parameters (experts, outputs, inputs) such as
    `experts.gate_up_proj` too. Raises PerpetuneError if a name is not in the model.
    """
    experts = _experts(model)
    if isinstance(asked, str):
        excluded = [name for name, module in linear_layers(model).items() if not _takes_adapter(model, name, module)]
        return LoraTargets(asked, excluded, [], tuple(sorted({_tail(name, 2) for name in experts})))
    modules = {name: module for name, module in model.named_modules() if isinstance(module, ADAPTABLE)}
    unknown = [one for one in asked if not _matching(one, [*modules, *experts])]
    if unknown:
        raise PerpetuneError(
            f"the base has no module `{unknown[0]}`",
            where=WHERE,
            do=f"use {ALL_LINEAR}, or some of {', '.join(_names(model, experts))}",
        )
    parameters = [one for one in asked if _matching(one, experts)]
    frozen = {_tail(name, 2) for name in experts if not any(_matching(one, [name]) for one in parameters)}
    return LoraTargets([one for one in asked if one not in parameters], [], parameters, tuple(sorted(frozen)))


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers by name, without the output layer."""
    head = cast(Any, model).get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def adapted_layers(model: nn.Module, targets: LoraTargets) -> list[nn.Module]:
    """The linear layers that get an adapter."""
    layers = linear_layers(model)
    if isinstance(targets.modules, str):
        return [module for name, module in layers.items() if name not in targets.excluded]
    return [module for name, module in layers.items() if any(_matching(one, [name]) for one in targets.modules)]


def adapted_experts(model: nn.Module, targets: LoraTargets) -> list[nn.Parameter]:
    """The expert parameters that get an adapter."""
    return [
        weight for name, weight in _experts(model).items() if any(_matching(one, [name]) for one in targets.parameters)
    ]


def _takes_adapter(model: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether `all-linear` adapts the layer: no encoder of images or sound, no router, nothing that peft refuses."""
    if not any(module is part for part in decoder_of(model).modules()):
        return False
    if "router" in type(module).__name__.lower():
        return False  # it returns more than its product
    config = cast(Any, model).config.get_text_config()
    return not (config.model_type in STATE_SPACES and _tail(name, 1) == PAST_ADAPTERS)


def _experts(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of experts that are one parameter for all of them, by name."""
    return {name: weight for name, weight in decoder_parameters(model) if weight.ndim == 3 and "expert" in name}


def decoder_parameters(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The decoder's parameters, by their names in the model."""
    inside = {id(weight) for weight in decoder_of(model).parameters()}
    return [(name, weight) for name, weight in model.named_parameters() if id(weight) in inside]


def _matching(asked: str, names: Iterable[str]) -> bool:
    return any(name == asked or name.endswith(f".{asked}") for name in names)


def _names(model: nn.Module, experts: Iterable[str]) -> Sequence[str]:
    taken = (name for name, module in linear_layers(model).items() if _takes_adapter(model, name, module))
    return sorted({_tail(name, 1) for name in taken} | {_tail(name, 2) for name in experts})


def _tail(name: str, parts: int) -> str:
    return ".".join(name.split(".")[-parts:])
