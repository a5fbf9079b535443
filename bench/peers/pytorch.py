#!/usr/bin/python3
"""PyTorch on one thread, in the protocol of attn-compare.

    about
    time NAME SECONDS COUNT SHAPE    SHAPE is the JSON object that attn-compare knows under the name. COUNT subjects, each with
                                     data of its own, are called in turn

    attention/torch       softmax(Q K^T / sqrt(d) + mask) V over [batch, heads, len, head_size]
    attention/torch_sdpa  scaled_dot_product_attention, which PyTorch has from 2.0 on
    layer/torch, layer/torch_sdpa    four Linear around these
    layer/d2l_torch       the MultiHeadAttention of Dive into Deep Learning, chapter 11.5
    gemm/torch            one Linear

NAME may end in types: bf16, or f32-int8, whose Linears are quantised dynamically.
"""

import itertools
import json
import math
import sys
import time

import torch
from torch import nn

HAS_SDPA = hasattr(nn.functional, "scaled_dot_product_attention")
HAS_GROUPS = HAS_SDPA and "enable_gqa" in nn.functional.scaled_dot_product_attention.__doc__
MOST_SAMPLES = 2000
LONG_CALL = 1e6  # microseconds: no further call is needed to warm it up
# The book's module holds the scores of all heads several times over; where once is more than this, it is left out.
MOST_SCORES = 2**28


def d2l_masked_softmax(scores, valid_lens):
    """What lies behind valid_lens, one per sequence or one per query row, is overwritten with -1e6 first."""
    if valid_lens is None:
        return scores.softmax(dim=-1)
    if valid_lens.dim() == 1:
        valid_lens = valid_lens.repeat_interleave(scores.shape[1])
    else:
        valid_lens = valid_lens.reshape(-1)
    rows = scores.reshape(-1, scores.shape[-1])
    positions = torch.arange(rows.shape[1])
    rows[positions[None, :] >= valid_lens[:, None]] = -1e6
    return rows.reshape(scores.shape).softmax(dim=-1)


class D2lAttention(nn.Module):
    """Heads are split and merged by reshaping and permuting, scores multiplied by bmm."""

    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.w_q = nn.Linear(hidden, hidden, bias=False)
        self.w_k = nn.Linear(hidden, hidden, bias=False)
        self.w_v = nn.Linear(hidden, hidden, bias=False)
        self.w_o = nn.Linear(hidden, hidden, bias=False)
        self.dropout = nn.Dropout(0.5)

    def split(self, x):
        x = x.reshape(x.shape[0], x.shape[1], self.heads, -1).permute(0, 2, 1, 3)
        return x.reshape(-1, x.shape[2], x.shape[3])

    def merge(self, x):
        x = x.reshape(-1, self.heads, x.shape[1], x.shape[2]).permute(0, 2, 1, 3)
        return x.reshape(x.shape[0], x.shape[1], -1)

    def forward(self, queries, keys, values, valid_lens):
        queries, keys, values = self.split(self.w_q(queries)), self.split(self.w_k(keys)), self.split(self.w_v(values))
        if valid_lens is not None:
            valid_lens = valid_lens.repeat_interleave(self.heads, dim=0)
        scores = torch.bmm(queries, keys.transpose(1, 2)) / math.sqrt(queries.shape[-1])
        weights = d2l_masked_softmax(scores, valid_lens)
        return self.w_o(self.merge(torch.bmm(self.dropout(weights), values)))


def attend(q, k, v, mask, causal):
    """mask is added to the scores, and has causality in it; None for none."""
    scores = torch.matmul(q, k.transpose(-2, -1)).mul_(1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores += mask
    return torch.matmul(scores.softmax(dim=-1), v)


def attend_sdpa(q, k, v, mask, causal):
    """Told of causality where the mask would say nothing else: it then skips what is hidden."""
    groups = {"enable_gqa": True} if k.shape[1] < q.shape[1] else {}
    if causal:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, **groups)
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, **groups)


class Layer(nn.Module):
    def __init__(self, hidden, heads, attend):
        super().__init__()
        self.heads = heads
        self.attend = attend
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))

    def forward(self, x, other, mask, causal):
        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        o = self.attend(split(self.w_q(x)), split(self.w_k(other)), split(self.w_v(other)), mask, causal)
        return self.w_o(o.transpose(1, 2).flatten(2))


def additive_mask(shape):
    columns = torch.arange(shape["kv_len"])[None, :]
    last = torch.full((shape["q_len"], 1), shape["valid"] - 1)
    if shape["causal"]:
        last = last - torch.arange(shape["q_len"] - 1, -1, -1)[:, None]
    hidden = columns > last
    return torch.zeros(hidden.shape).masked_fill_(hidden, -math.inf) if hidden.any() else None


def element_type(types):
    return torch.bfloat16 if types == "bf16" else torch.float32


def mask_of(shape, types):
    """The mask, and whether causality is all that it says."""
    mask = additive_mask(shape)
    only_causal = shape["causal"] and shape["valid"] == shape["kv_len"] == shape["q_len"]
    return mask if mask is None else mask.to(element_type(types)), only_causal


def quantised(module, types):
    """As `types` says; products of integers are those of the engine that this PyTorch prefers."""
    if types != "f32-int8":
        return module.to(element_type(types))
    if torch.backends.quantized.engine == "none":
        raise ValueError("PyTorch was built without an engine for quantised products")
    return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)


def make_attention(shape, types, of):
    """Groups of query heads are told of, or keys and values are repeated ahead."""
    q = torch.randn(shape["batch"], shape["heads"], shape["q_len"], shape["head_size"])
    k, v = (torch.randn(shape["batch"], shape["kv_heads"], shape["kv_len"], shape["head_size"]) for _ in range(2))
    q, k, v = (each.to(element_type(types)) for each in (q, k, v))
    if of is attend or not HAS_GROUPS:
        k, v = (each.repeat_interleave(shape["heads"] // shape["kv_heads"], 1) for each in (k, v))
    mask, causal = mask_of(shape, types)
    return lambda: of(q, k, v, mask, causal)


def layer_inputs(shape, types=""):
    x = torch.randn(shape["batch"], shape["q_len"], shape["hidden"]).to(element_type(types))
    if shape["q_len"] == shape["kv_len"]:
        return x, x
    return x, torch.randn(shape["batch"], shape["kv_len"], shape["hidden"]).to(element_type(types))


def make_layer(shape, types, attend):
    layer = quantised(Layer(shape["hidden"], shape["heads"], attend).eval(), types)
    x, other = layer_inputs(shape, types)
    mask, causal = mask_of(shape, types)
    return lambda: layer(x, other, mask, causal)


def make_gemm(shape, types):
    linear = quantised(nn.Sequential(nn.Linear(shape["k"], shape["n"], bias=False)).eval(), types)
    x = torch.randn(shape["m"], shape["k"]).to(element_type(types))
    return lambda: linear(x)


def make_d2l(shape):
    if shape["batch"] * shape["heads"] * shape["q_len"] * shape["kv_len"] > MOST_SCORES:
        raise ValueError("the scores of all heads do not fit")
    layer = D2lAttention(shape["hidden"], shape["heads"]).eval()
    x, other = layer_inputs(shape)
    lens = None
    if shape["causal"]:
        lens = torch.arange(1, shape["q_len"] + 1).repeat(shape["batch"], 1)
    return lambda: layer(x, other, other, lens)


def make(name, shape):
    operation, variant, _, types = (name + "/").split("/")[:4]
    if operation == "gemm":
        return make_gemm(shape, types)
    if variant == "d2l_torch":
        return make_d2l(shape)
    attend_of = attend_sdpa if variant == "torch_sdpa" else attend
    return (make_attention if operation == "attention" else make_layer)(shape, types, attend_of)


def microseconds(call):
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


class Server:
    def __init__(self):
        self.made = None
        self.calls = None
        self.first_us = None

    def time(self, name, seconds, count, shape):
        if self.made != (name, count):
            self.made = self.calls = None
            first = make(name, shape)
            self.first_us = microseconds(first)
            others = [make(name, shape) for _ in range(count - 1)]
            for call in others:
                call()
            self.calls = itertools.cycle([first, *others])
            self.made = name, count
        if count == 1 and self.first_us < LONG_CALL:
            microseconds(next(self.calls))
        samples = []
        end = time.perf_counter() + seconds
        while not samples or (len(samples) < MOST_SAMPLES and time.perf_counter() < end):
            samples.append(microseconds(next(self.calls)))
        return {"first_us": self.first_us, "samples_us": samples}

    def answer(self, line):
        verb, *rest = line.split(None, 4)
        if verb == "about":
            return {"torch": torch.__version__, "torch_lacks": [] if HAS_SDPA else ["torch_sdpa"]}
        name, seconds, count, shape = rest
        return self.time(name, float(seconds), int(count), json.loads(shape))


def main():
    torch.set_num_threads(1)
    server = Server()
    with torch.no_grad():
        for line in sys.stdin:
            try:
                answer = server.answer(line)
            except (AttributeError, KeyError, ValueError, RuntimeError, MemoryError) as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)


main()
