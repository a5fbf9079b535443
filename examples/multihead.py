#!/usr/bin/env python3
"""Prints what PyTorch's nn.MultiheadAttention makes of the inputs of multihead.c, for the table there.

usage: multihead.py
"""
import torch
from torch import nn

WIDTH, HEADS, BATCH, QUERIES, KEYS = 8, 2, 2, 3, 5


def numbers(seed, *shape):
    """Those of support.h."""
    values = []
    for _ in range(torch.Size(shape).numel()):
        seed = (seed * 1664525 + 1013904223) % 2 ** 32
        values.append((seed >> 8) / 2 ** 23 - 1)
    return torch.tensor(values).view(shape)


def main():
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        module.in_proj_weight.copy_(numbers(1, 3 * WIDTH, WIDTH))
        module.in_proj_bias.copy_(numbers(2, 3 * WIDTH))
        module.out_proj.weight.copy_(numbers(3, WIDTH, WIDTH))
        module.out_proj.bias.copy_(numbers(4, WIDTH))
    query, key = numbers(5, BATCH, QUERIES, WIDTH), numbers(6, BATCH, KEYS, WIDTH)
    attn_mask = torch.tensor([[0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    key_padding_mask = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    y, weights = module(query, key, key, key_padding_mask=key_padding_mask, attn_mask=attn_mask)
    for tensor in (y, weights):
        for row in tensor.reshape(BATCH * QUERIES, -1).tolist():
            print('{' + ', '.join('%.6ff' % value for value in row) + '},')


if __name__ == '__main__':
    main()
