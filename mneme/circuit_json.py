"""Circuits as JSON text: a form of our own that keeps everything, and the one of the MIB circuit track."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mneme.arguments import whole_number
from mneme.circuits import Circuit
from mneme.edge_graph import EdgeGraph
from mneme.errors import BadInput

FORMAT = "mneme circuit 1"
MOST_NODES = 1 << 13  # sources of a graph that a file may ask for; 80 layers of 64 heads have 5,201


@dataclass(frozen=True)
class WrittenCircuit:
    """A circuit as it was read: scores [source slot] float64, NaN where there is none; about: the facts beside it."""

    circuit: Circuit
    scores: Tensor
    about: dict[str, Any]


def circuit_to_json(circuit: Circuit, scores: Tensor | None = None, about: Mapping[str, Any] | None = None) -> str:
    """A circuit as JSON text: its graph, its edges by name with their scores, and facts `about` it.

    scores [source slot], of which those of kept edges are written; without them, each score is null. What was asked
    for before pruning stays beside it. The same circuit gives the same text.
    Raises: BadInput for scores of another graph, a kept edge without a score, or facts that are no JSON.
    """
    graph, kept = circuit.graph, circuit.edges.cpu()
    values = _scores_of(graph, scores, kept)
    edges = [
        {"source": graph.sources[source], "destination": graph.slots[slot], "score": values[source][slot]}
        for source, slot in kept.nonzero().tolist()
    ]
    shape = {
        "n_heads": graph.n_heads,
        "n_kv_heads": graph.n_kv_heads,
        "is_parallel": list(graph.is_parallel),
        "has_mlps": graph.has_mlps,
    }
    content = {"format": FORMAT, "about": dict(about or {}), "graph": shape, "n_requested": circuit.n_requested}
    try:
        return json.dumps({**content, "edges": edges}, allow_nan=False, indent=1)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the facts about a circuit must be plain JSON without NaN ({error})") from error


def circuit_from_json(text: str) -> WrittenCircuit:
    """The circuit of a text of `circuit_to_json`, with its scores; those of other edges are NaN.

    Raises: BadInput for what is no such text, edges the graph does not have, or an edge that is named twice.
    """
    content = _object(_parsed(text), "the circuit")
    if content.get("format") != FORMAT:
        raise BadInput(f"the text says format {content.get('format')!r}: give one of circuit_to_json, {FORMAT!r}")
    graph = _graph(_object(content.get("graph"), "graph"))
    listed = content.get("edges")
    if not isinstance(listed, list):
        raise BadInput("the circuit names no list of edges: give one, empty if there are none")
    edges, scores = _blank(graph)
    places = _Places(graph)
    for each in listed:
        edge = _object(each, "an edge")
        place = places.of(f"{edge.get('source')}->{edge.get('destination')}")
        if bool(edges[place]):
            raise BadInput(f"the edge {graph.edge_names([place])[0]} is named twice: keep one of them")
        edges[place] = True
        scores[place] = _number(edge.get("score"), graph.edge_names([place])[0])
    n_requested = whole_number("n_requested", content.get("n_requested"), 0)
    return WrittenCircuit(Circuit(graph, edges, n_requested), scores, _object(content.get("about"), "about"))


def to_mib(circuit: Circuit, scores: Tensor | None = None, *, d_model: int) -> str:
    """A circuit in the JSON of the MIB circuit track: every node and edge with `in_graph`, every edge with a score.

    Its scores are changes of a loss, so ours are written with the other sign: positive helps. Without scores, 1 stands
    for kept edges and 0 for all others, since its reader asks for a number everywhere. A node is in the graph when an
    edge leaves it; the logits always are. What was asked for before pruning has no place there.
    Source: Mueller et al. 2025 (MIB); the form of `Graph.to_json` of EAP-IG.
    Raises: BadInput for graphs that the form cannot hold, scores of another graph, or an edge without a score.
    """
    graph, kept = circuit.graph, circuit.edges.cpu()
    whole_number("d_model", d_model, 1)
    if graph.n_kv_heads != graph.n_heads or not graph.has_mlps or len(set(graph.is_parallel)) != 1:
        raise BadInput(
            "the MIB form holds ungrouped graphs with MLPs whose layers are alike: "
            "score the edges of the ungrouped graph, or keep the circuit in the form of circuit_to_json"
        )
    values = kept.double().tolist() if scores is None else _scores_of(graph, -scores, graph.legal)
    is_in = [*zip(graph.sources, circuit.nodes.tolist(), strict=True), ("logits", True)]
    cfg = {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.is_parallel[0],
        "d_model": d_model,
    }
    places = graph.legal.nonzero().tolist()
    names = graph.edge_names([(source, slot) for source, slot in places])
    edges = {
        name: {"score": values[source][slot], "in_graph": bool(kept[source, slot])}
        for name, (source, slot) in zip(names, places, strict=True)
    }
    return json.dumps({"cfg": cfg, "nodes": {name: {"in_graph": each} for name, each in is_in}, "edges": edges})


def from_mib(text: str) -> WrittenCircuit:
    """The circuit of a MIB circuit-track JSON: edges with `in_graph`, and all scores with the sign that is used here.

    Edges that the text leaves out are not kept and have no score, and a score of NaN is none. How many edges were asked
    for is not told: the number of kept ones stands for it. Which nodes are kept follows from the edges; `about` holds
    its `cfg`. Raises: BadInput for what is no such text, unknown nodes or edges, and circuits of single neurons.
    """
    content = _object(_parsed(text), "the circuit")
    cfg, nodes, listed = (_object(content.get(key), key) for key in ("cfg", "nodes", "edges"))
    n_layers, n_heads = (whole_number(f"cfg.{key}", cfg.get(key), 1, MOST_NODES) for key in ("n_layers", "n_heads"))
    is_parallel = _flag(cfg.get("parallel_attn_mlp"), "cfg.parallel_attn_mlp")
    graph = _checked(EdgeGraph(n_heads, n_heads, (is_parallel,) * n_layers))
    unknown = sorted(set(nodes) - {*graph.sources, "logits"})
    if unknown:
        raise BadInput(f"{unknown[0]!r} is no node of {n_layers} layers with {n_heads} heads: correct cfg or the node")
    if any("neurons" in _object(each, name) for name, each in nodes.items()):
        raise BadInput("the text holds single neurons, which circuits of edges cannot: give one of whole nodes")
    edges, scores = _blank(graph)
    places = _Places(graph)
    for name, each in listed.items():
        place, edge = places.of(name), _object(each, name)
        edges[place] = _flag(edge.get("in_graph"), f"in_graph of {name}")
        scores[place] = -_number(edge.get("score"), name)
    return WrittenCircuit(Circuit(graph, edges, int(edges.sum())), scores, {"cfg": cfg})


class _Places:
    """Where edges stand in a matrix [source slot], by name."""

    def __init__(self, graph: EdgeGraph) -> None:
        self.graph = graph
        self.sources = {name: place for place, name in enumerate(graph.sources)}
        self.slots = {name: place for place, name in enumerate(graph.slots)}

    def of(self, name: str) -> tuple[int, int]:
        """The (source, slot) of an edge; refuses names of no edge."""
        source, _, slot = name.partition("->")
        if source not in self.sources or slot not in self.slots:
            raise BadInput(f"{name!r} joins no source and slot of the graph: names are such as 'a0.h1->a1.h2<k>'")
        place = self.sources[source], self.slots[slot]
        if not bool(self.graph.legal[place]):
            raise BadInput(f"{name} is no edge: a slot reads earlier sources only")
        return place


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the text is no JSON: {error}") from error


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{place} must be a JSON object, not {type(value).__name__}")
    return value


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise BadInput(f"{place} is {value!r}: give true or false")
    return value


def _number(value: Any, name: str) -> float:
    """A score; NaN for null."""
    if value is None:
        return math.nan
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > sys.float_info.max:
        raise BadInput(f"the score of {name} is {str(value)[:80]!r}: give a number, or null for none")
    return float(value)


def _graph(shape: dict[str, Any]) -> EdgeGraph:
    n_heads = whole_number("graph.n_heads", shape.get("n_heads"), 1, MOST_NODES)
    n_kv_heads = whole_number("graph.n_kv_heads", shape.get("n_kv_heads"), 1, n_heads)
    layers = shape.get("is_parallel")
    if not isinstance(layers, list) or not layers or n_heads % n_kv_heads:
        raise BadInput("graph must name is_parallel for each layer and n_kv_heads that divide n_heads")
    is_parallel = tuple(_flag(each, "graph.is_parallel") for each in layers)
    return _checked(EdgeGraph(n_heads, n_kv_heads, is_parallel, _flag(shape.get("has_mlps"), "graph.has_mlps")))


def _checked(graph: EdgeGraph) -> EdgeGraph:
    if graph.n_sources > MOST_NODES:
        raise BadInput(f"the graph has {graph.n_sources} sources, more than the {MOST_NODES} that are read")
    return graph


def _blank(graph: EdgeGraph) -> tuple[Tensor, Tensor]:
    """No edge and no score."""
    return torch.zeros_like(graph.legal), torch.full(graph.legal.shape, torch.nan, dtype=torch.float64)


def _scores_of(graph: EdgeGraph, scores: Tensor | None, wanted: Tensor) -> list[list[float | None]]:
    """Scores [source slot] as plain numbers, None without any; refuses one that is missing or infinite where wanted."""
    if scores is None:
        return [[None] * graph.n_slots] * graph.n_sources
    if scores.shape != graph.legal.shape:
        raise BadInput(f"scores must be [source slot] {list(graph.legal.shape)}, not {list(scores.shape)}")
    bad = (wanted & ~scores.cpu().isfinite()).nonzero().tolist()
    if bad:
        source, slot = bad[0]
        raise BadInput(
            f"the edge {graph.edge_names([(source, slot)])[0]} has no score: score every edge that is written"
        )
    found: list[list[float | None]] = scores.double().cpu().tolist()
    return found
