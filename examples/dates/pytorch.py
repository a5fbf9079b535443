#!/usr/bin/env python3
"""Times PyTorch on what `dates --bench` times: the same weights, the same dates, one at a time, one thread.

usage: pytorch.py
Keys and values of earlier steps and of the encoder are kept, as in model.c. Needs PyTorch, 1.13 or later.
"""
import json
import math
import pathlib
import statistics
import struct
import sys
import time

sys.dont_write_bytecode = True  # of train.py and lines.py, in the source tree

import torch
from torch.nn import functional

import train

HERE = pathlib.Path(__file__).resolve().parent
DATES = ['Wednesday, 3rd of March 2021', '2021年3月5日', 'Monday 5 July 2049', 'OCTOBER 3 1961', '13.05.2055', '04mar2007',
         '5 Dec 1999', '1/9/1958']
ANSWERS = ['2021-03-03', '2021-03-05', '2049-07-05', '1961-10-03', '2055-05-13', '2007-03-04', '1999-12-05', '1958-01-09']
SECONDS, WARM_UP = 1., 24


def load(model):
    """Of dates.safetensors, W_q, W_k and W_v of an attention as the one matrix that train.py has."""
    data = (HERE / 'dates.safetensors').read_bytes()
    size, = struct.unpack('<Q', data[:8])
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != '__metadata__':
            begin, end = entry['data_offsets']
            tensors[name] = torch.frombuffer(bytearray(data[8 + size + begin:8 + size + end]),
                                             dtype=torch.float32).view(entry['shape'])
    state = {}
    for name in model.state_dict():
        parts = [name.replace('projections', f'W_{letter}.weight') for letter in 'qkv']
        state[name] = torch.cat([tensors[part] for part in parts]) if name.endswith('projections') else tensors[name]
    model.load_state_dict(state)


def attend(attention, query, key, value):
    """One query row: nothing to mask."""
    weights = ((query * (train.HIDDEN // train.HEADS) ** -.5) @ key.transpose(-1, -2)).softmax(-1)
    return attention.W_o((weights @ value).transpose(1, 2).reshape(1, 1, train.HIDDEN))


def step(layer, x, kept, memory):
    attention, cross = layer.self_attention, layer.cross_attention
    query, key, value = attention.heads(functional.linear(x, attention.projections))
    kept[:] = [torch.cat([old, new], 2) for old, new in zip(kept, (key, value))] if kept else [key, value]
    x = layer.norm1(x + attend(attention, query, *kept))
    query, = cross.heads(functional.linear(x, cross.projections[:train.HIDDEN]))
    x = layer.norm2(x + attend(cross, query, *memory))
    return layer.norm3(x + layer.ffn_out(functional.relu(layer.ffn_in(x))))


@torch.no_grad()
def rewrite(model, text):
    encoded, _ = model.encode(train.encode_lines([text]))
    memory = [layer.cross_attention.heads(functional.linear(encoded, layer.cross_attention.projections[train.HIDDEN:]))
              for layer in model.decoder]
    kept, token, answer = [[] for _ in model.decoder], train.BOS, ''
    for position in range(12):
        x = model.embedding.weight[token] * math.sqrt(train.HIDDEN) + model.positional[position]
        x = x.view(1, 1, -1)
        for layer, its, of_source in zip(model.decoder, kept, memory):
            x = step(layer, x, its, of_source)
        token = int(model.output(x).argmax())
        if token == train.EOS:
            break
        answer += train.VOCABULARY[token]
    return answer


def main():
    torch.set_num_threads(1)
    model = train.Model().eval()
    load(model)
    if [rewrite(model, date) for date in DATES] != ANSWERS:
        sys.exit('pytorch.py: a wrong answer')
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < WARM_UP * 2:
        begin = time.perf_counter()
        rewrite(model, DATES[len(times) % len(DATES)])
        times.append(time.perf_counter() - begin)
    times = sorted(times[WARM_UP:])
    print('%-12s %6d %9.1f %9.1f   version %s' % ('PyTorch', len(times), 1e6 * statistics.median(times),
                                                 1e6 * times[len(times) * 99 // 100], torch.__version__))


if __name__ == '__main__':
    main()
