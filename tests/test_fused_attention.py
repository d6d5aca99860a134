"""Attention is one node of an export, computes the same, and is left alone where it is of another kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from onnxruntime import InferenceSession
from tiny_models import write_tiny_model
from torch import nn

from index.fused_attention import OPERATOR, fuse_attention
from index.models import DEFAULT_MODEL, find_model
from index.onnx_export import OPSET, Precision, exported_model

WIDTH, HEADS, TOKENS = 12, 3, 7


class Attention(nn.Module):
    """Self-attention as transformer models have it, with what some of them add to it."""

    def __init__(
        self, *, bias: bool = True, divisor: float | None = None, mask: bool = False, by_heads: bool = False
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.divisor, self.mask, self.by_heads = divisor, mask, by_heads

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        shape = (*states.shape[:-1], *((HEADS, -1) if self.by_heads else (-1, WIDTH // HEADS)))
        query, key, value = (
            layer(states).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.divisor is not None:
            products = query @ key.transpose(-1, -2) / self.divisor
            weighted = products.softmax(-1) @ value
        else:
            mask = torch.ones(shape[1], shape[1]).tril() if self.mask else None
            scale = (WIDTH // HEADS) ** -0.5
            weighted = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        joined = weighted.transpose(1, 2).reshape(*states.shape[:-1], -1)
        return states + self.out(joined)


def exported(module: nn.Module, path: Path) -> ModelProto:
    """Export a module as models are exported."""
    torch.onnx.export(
        module.eval(),
        (torch.ones(1, 3, WIDTH),),
        str(path),
        dynamo=False,
        input_names=["states"],
        output_names=["found"],
        dynamic_axes={"states": {1: "tokens"}, "found": {1: "tokens"}},
        opset_version=OPSET,
    )
    return onnx.load(path)


def run(model: ModelProto, states: np.ndarray) -> np.ndarray:
    """Compute what a graph makes of some states."""
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"states": states})[0]
    return found


def operators(model: ModelProto) -> list[str]:
    """Return the kinds of a graph's nodes."""
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_one_node_computes_the_same(tmp_path: Path, bias: bool) -> None:
    torch.manual_seed(1)
    layers = nn.Sequential(Attention(bias=bias), Attention(bias=bias))
    model = exported(layers, tmp_path / "model.onnx")
    states = np.random.default_rng(2).normal(size=(1, TOKENS, WIDTH)).astype(np.float32)
    expected = run(model, states)
    assert fuse_attention(model) == 2
    assert operators(model).count(OPERATOR) == 2
    assert not {"Softmax", "Transpose", "Reshape"} & set(operators(model))
    np.testing.assert_allclose(run(model, states), expected, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(layers(torch.tensor(states)), expected, atol=1e-5)


@pytest.mark.parametrize("other", [{"mask": True}, {"divisor": 1.5}, {"by_heads": True}])
@pytest.mark.filterwarnings("ignore")
def test_attention_of_another_kind_is_left_as_it_is(tmp_path: Path, other: dict[str, float]) -> None:
    model = exported(Attention(**other), tmp_path / "model.onnx")  # type: ignore[arg-type]
    before = model.SerializeToString()
    assert fuse_attention(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.filterwarnings("ignore")
def test_a_softmax_that_is_no_attention_is_left_as_it_is(tmp_path: Path) -> None:
    model = exported(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Softmax(-1)), tmp_path / "model.onnx")
    assert fuse_attention(model) == 0
    assert operators(model).count("Softmax") == 1


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("name", ["default", "tiny"])
def test_each_layer_of_an_export_has_one(tmp_path: Path, cache_folder: Path, name: str, precision: Precision) -> None:
    model = find_model(DEFAULT_MODEL if name == "default" else str(write_tiny_model(tmp_path / "model")))
    export = exported_model(model, cache_folder / "models", precision)
    assert export is not None
    graph = onnx.load(export.graph_path)
    layers = {"default": 6, "tiny": 2}[name]
    assert operators(graph).count(OPERATOR) == layers
    assert not {"Softmax", "SkipLayerNormalization"} & set(operators(graph))
