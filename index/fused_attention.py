"""Attention as one node of an exported graph.

torch.onnx writes the attention of a layer (Vaswani et al. 2017, "Attention Is All You Need", 3.2.2) as two matrix
products, a softmax, and what turns heads and tokens around between them. ONNX Runtime has one operator for all of it,
`MultiHeadAttention`, but puts it in by itself only where a mask is added, and texts that go through alone need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

DOMAIN, OPERATOR = "com.microsoft", "MultiHeadAttention"
HEADS_FIRST, KEYS_LAST = [0, 2, 1, 3], [0, 2, 3, 1]  # of (text, token, head, component)


@dataclass(frozen=True)
class _Attention:
    """Where attention stands in a graph.

    Attributes:
        inputs: names of queries, keys and values, each of shape (1, tokens, dimension).
        heads: how many there are.
        scale: of the products of queries and keys.
        last: the node whose output is that of all.
    """

    inputs: tuple[str, str, str]
    heads: int
    scale: float
    last: NodeProto


def fuse_attention(model: ModelProto) -> int:
    """Put one node for each attention without a mask into a graph; what looks otherwise is left as it is.

    Args:
        model: as torch.onnx exports it, of one text at a time; it is changed.

    Returns:
        How many were put in.
    """
    found = list(_Graph(model.graph).attentions())
    for each in found:
        place = list(model.graph.node).index(each.last)
        fused = helper.make_node(
            OPERATOR, each.inputs, list(each.last.output), domain=DOMAIN, num_heads=each.heads, scale=each.scale
        )
        del model.graph.node[place]
        model.graph.node.insert(place, fused)
    if found:
        _remove_unused(model.graph)
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(found)


class _Graph:
    """A graph, to be looked through from node to node."""

    def __init__(self, graph: GraphProto) -> None:
        self._nodes = list(graph.node)
        self._maker = {name: node for node in graph.node for name in node.output}
        self._users: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._initial = {each.name: each for each in graph.initializer}

    def attentions(self) -> Iterator[_Attention]:
        """Find every attention, in their order."""
        for node in self._nodes:
            found = self._attention(node) if node.op_type == "Softmax" else None
            if found is not None:
                yield found

    def _attention(self, softmax: NodeProto) -> _Attention | None:
        products = self._made_by(softmax.input[0], "MatMul")
        weighted = self._only_user(softmax.output[0], "MatMul")
        is_over_tokens = softmax.attribute[0].i in (-1, 3)
        if products is None or weighted is None or not is_over_tokens or weighted.input[0] != softmax.output[0]:
            return None
        query_scale, queries = self._unscaled(products.input[0])
        key_scale, keys = self._unscaled(products.input[1])
        sides = ((queries, HEADS_FIRST), (keys, KEYS_LAST), (weighted.input[1], HEADS_FIRST))
        split = [self._split_in_heads(name, order) for name, order in sides]
        last = self._joined_heads(weighted.output[0])
        if last is None or any(each is None for each in split):
            return None
        (inputs, heads) = zip(*(each for each in split if each is not None), strict=True)
        if len(set(heads)) != 1:
            return None
        return _Attention(inputs, heads[0], query_scale * key_scale, last)

    def _unscaled(self, name: str) -> tuple[float, str]:
        """Return the constant that an array is multiplied with, and the array before that."""
        product = self._made_by(name, "Mul")
        if product is None:
            return 1.0, name
        for one, other in (product.input, reversed(product.input)):
            constant = self._constant(other)
            if constant is not None and constant.size == 1:
                return float(constant.item()), one
        return 1.0, name

    def _split_in_heads(self, name: str, order: list[int]) -> tuple[str, int] | None:
        """Return the array (1, tokens, dimension) of which one by heads was made, and the number of heads."""
        turned = self._made_by(name, "Transpose")
        shaped = self._made_by(turned.input[0], "Reshape") if turned is not None and _order(turned) == order else None
        shape = self._made_by(shaped.input[1], "Concat") if shaped is not None else None
        if shaped is None or shape is None or len(shape.input) != 4:
            return None
        size, width = self._constant(shape.input[3]), self._width(shaped.input[0])
        if size is None or width is None or size.item() < 1:
            return None
        return shaped.input[0], width // int(size.item())

    def _width(self, name: str) -> int | None:
        """Return the size of the last axis of what a linear layer makes, with or without a bias."""
        biased = self._made_by(name, "Add")
        products = (self._made_by(each, "MatMul") for each in (name, *(biased.input if biased is not None else ())))
        weights = [self._initial.get(each.input[1]) for each in products if each is not None]
        return weights[0].dims[-1] if weights and weights[0] is not None else None

    def _joined_heads(self, name: str) -> NodeProto | None:
        """Return the node that makes an array (1, tokens, dimension) of one by heads."""
        # torch gives the shape of the products once more, to the same.
        first = self._only_user(name, "Reshape")
        turned = self._only_user(name if first is None else first.output[0], "Transpose")
        if turned is None or _order(turned) != HEADS_FIRST:
            return None
        return self._only_user(turned.output[0], "Reshape")

    def _made_by(self, name: str, kind: str) -> NodeProto | None:
        node = self._maker.get(name)
        return node if node is not None and node.op_type == kind else None

    def _only_user(self, name: str, kind: str) -> NodeProto | None:
        """Return the one node of a kind that computes with an array; others may only ask for its shape."""
        users = [node for node in self._users.get(name, []) if node.op_type != "Shape"]
        return users[0] if len(users) == 1 and users[0].op_type == kind else None

    def _constant(self, name: str) -> NDArray[np.generic] | None:
        node = self._made_by(name, "Constant")
        found = self._initial.get(name) if node is None else node.attribute[0].t
        return None if found is None else numpy_helper.to_array(found)


def _order(transpose: NodeProto) -> list[int]:
    return list(transpose.attribute[0].ints)


def _remove_unused(graph: GraphProto) -> None:
    """Remove the nodes whose outputs nothing uses any more."""
    while True:
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        unused = [node for node in graph.node if used.isdisjoint(node.output)]
        if not unused:
            return
        for node in unused:
            graph.node.remove(node)
