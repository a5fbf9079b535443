#!/usr/bin/env python3
"""What invariance.c does, with PyTorch: the bits of one request alone, in a batch, in chunks and token by token.

usage: invariance.py
Runs itself once for each instruction set that PyTorch can be held to, and prints how many different hashes came of it.
Needs PyTorch, 1.13 or later; on Debian python3-torch, then /usr/bin/python3 examples/invariance.py.
"""
import os
import subprocess
import sys
import zlib

WIDTH, HEADS, LENGTH, NEW, BATCH = 64, 4, 4200, 24, 3
HEAD_SIZE = WIDTH // HEADS
CAPABILITIES = ['default', 'avx2', 'avx512']
WAYS = ['alone, in one piece', 'in a batch of 3', 'in chunks of 7', 'token by token']


def forward(functional, x, keys, values, weights, hidden):
    """Projects the rows x, attends over keys and values that are projected already, and projects the result."""
    import torch
    attend = getattr(functional, 'scaled_dot_product_attention', None) or functional._scaled_dot_product_attention
    heads = [t.view(t.shape[0], t.shape[1], HEADS, HEAD_SIZE).transpose(1, 2) for t in (x @ weights[0], keys, values)]
    o = attend(*heads, attn_mask=hidden.expand(x.shape[0], HEADS, -1, -1))
    o = o[0] if isinstance(o, tuple) else o  # 1.13 returns the weights too
    return torch.reshape(o.transpose(1, 2), x.shape) @ weights[3]


def compute(torch, way, tokens, weights):
    functional = torch.nn.functional
    above = torch.full((NEW, LENGTH), float('-inf')).triu(LENGTH - NEW + 1)
    request = tokens[1:2]
    if way < 2:
        sequences = tokens if way == 1 else request
        keys, values = sequences @ weights[1], sequences @ weights[2]
        return forward(functional, sequences[:, -NEW:], keys, values, weights, above)[way]
    step = 7 if way == 2 else 1
    first = request[:, :-NEW]
    keys, values, outputs = first @ weights[1], first @ weights[2], []
    for i in range(0, NEW, step):
        x = request[:, LENGTH - NEW + i:][:, :step]
        keys, values = torch.cat([keys, x @ weights[1]], 1), torch.cat([values, x @ weights[2]], 1)
        outputs.append(forward(functional, x, keys, values, weights, above[i:i + step, :keys.shape[1]]))
    return torch.cat(outputs, 1)[0]


def hashes():
    """Prints a line for each way: its name, and a hash for 1, 2 and 3 threads."""
    import torch
    torch.manual_seed(0)
    tokens = torch.rand(BATCH, LENGTH, WIDTH) * 2 - 1
    weights = (torch.rand(4, WIDTH, WIDTH) * 2 - 1) * .2  # or one key would have all weight
    for way, name in enumerate(WAYS):
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append('%08x' % zlib.crc32(compute(torch, way, tokens, weights).contiguous().numpy().tobytes()))
        print(name, *found, sep='\t', flush=True)


def blas():
    """The library that multiplies PyTorch's matrices, as the system loaded it; it decides on the bits."""
    try:
        with open('/proc/self/maps') as maps:
            paths = {os.path.realpath(line.split()[-1]) for line in maps if 'blas' in line or 'libmkl' in line}
        return ', '.join(sorted(map(os.path.basename, paths))) or 'its own BLAS'
    except OSError:
        return 'its own BLAS'


def main():
    if sys.argv[1:] == ['--hashes']:
        hashes()
        return
    seen, count = set(), 0
    print('%-12s %-20s  %-9s %-9s %s' % ('', '', '1 thread', '2 threads', '3 threads'))
    for capability in CAPABILITIES:
        child = subprocess.Popen([sys.executable, __file__, '--hashes'], stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, 'ATEN_CPU_CAPABILITY': capability})
        for line in child.stdout:
            name, *found = line.rstrip('\n').split('\t')
            print('%-12s %-20s  %-9s %-9s %s' % (capability, name, *found), flush=True)
            seen.update(found)
            count += len(found)
        if child.wait() != 0:
            sys.exit('PyTorch failed')
    import torch
    print(f'{count} results, {len(seen)} hash{"es" if len(seen) > 1 else ""}: PyTorch {torch.__version__}, {blas()}')


if __name__ == '__main__':
    main()
