#!/usr/bin/python3
"""How far results of each type are from double precision, beside oneDNN's and PyTorch's on the same numbers.

usage: accuracy.py [build/bench/attn-accuracy]

Prints the tables of docs/accuracy.md. Errors are in units of the root mean square of the exact results. Each row has two
pairs of them, the root mean square and the largest: against the numbers that are multiplied (those of a BF16, an integer
times its scale), which the bound is of too, and against the numbers before they were rounded to that. Inputs are normal;
weights of INT8 have a scale of largest / 127 for each output or block, those of INT4 the scale of each block that makes its
largest magnitude -8, an F8 one for each head that makes the largest number of its type the head's largest.

Needs NumPy, and PyTorch for its rows.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np

try:
    import torch
except ImportError:
    torch = None

PROGRAM = 'build/bench/attn-accuracy'
PRODUCTS = [(64, 768, 768), (16, 1024, 4096)]
# Heads, rows, keys, size of a head, and what queries are multiplied by.
ATTENTION = [(12, 128, 128, 64, 1), (12, 512, 512, 64, 1), (12, 128, 128, 64, 4)]

# ---- Types ----


def bf16_bits(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bits_of(x, kind):
    """The elements as they lie in memory."""
    x = np.ascontiguousarray(x, np.float32)
    return bf16_bits(x) if kind == 'bf16' else x.astype(np.float16) if kind == 'f16' else x


def rounded(x, kind):
    bits = bits_of(x, kind)
    return (widened(bits) if kind == 'bf16' else bits).astype(np.float64)


def rows_int8(x):
    """Rows as quantised.h has them: integers, and a scale for each."""
    x = x.astype(np.float32)
    largest = np.abs(x).max(-1, keepdims=True)
    return np.rint(x * (np.float32(127) / largest)), largest / np.float32(127)


F8 = {'f8_e4m3': (3, -6, 448.), 'f8_e5m2': (2, -14, 57344.)}


def round_f8(x, kind):
    fraction, lowest, largest = F8[kind]
    _, exponent = np.frexp(x)
    unit = np.exp2(np.maximum(exponent - 1, lowest) - fraction)
    return np.clip(np.rint(x / unit) * unit, -largest, largest)


def hold(x, kind):
    """What a cache of that type holds of [head][key][size], in double precision, and the scales of heads."""
    if kind == 'f16':
        return rounded(x, kind), None
    if kind == 'int8':
        integers, scales = rows_int8(x)
        return integers.astype(np.float64) * scales, None
    scales = (np.abs(x).max((1, 2)) / np.float32(F8[kind][2])).astype(np.float32)
    return round_f8((x / scales[:, None, None]).astype(np.float64), kind) * scales[:, None, None].astype(np.float64), scales


def weights_int8(w, block=0):
    """Of [n][k]: integers, scales, and what they stand for. A block of 0 is all of k."""
    n, k = w.shape
    blocks = w.reshape(n, -1, block or k)
    scales = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float32)
    integers = np.clip(np.rint(blocks / scales[..., None]), -127, 127)
    stored = (integers * scales[..., None].astype(np.float64)).reshape(n, k)
    return integers.reshape(n, k).astype(np.int8), scales, stored


def weights_int4(w, block):
    n, k = w.shape
    blocks = w.reshape(n, k // block, block)
    at = np.abs(blocks).argmax(-1)[..., None]
    scales = (np.take_along_axis(blocks, at, -1) / np.float32(-8)).astype(np.float32)
    integers = np.clip(np.rint(blocks / scales), -8, 7)
    pairs = (integers + 8).astype(np.uint8).reshape(n, k // 2, 2)
    stored = (integers * scales.astype(np.float64)).reshape(n, k)
    return pairs[..., 0] | pairs[..., 1] << 4, scales.reshape(n, -1), stored


# ---- The program, and peers ----


def short(version):
    return '.'.join(version.split('.')[:2])


TORCH = 'PyTorch ' + short(torch.__version__) if torch else None


class Program:
    def __init__(self, path, folder):
        self.path, self.folder = os.path.abspath(path), folder
        self.onednn = self.version_of_onednn()

    def version_of_onednn(self):
        """None where the program was built without it."""
        try:
            return 'oneDNN ' + short(self.run('onednn'))
        except subprocess.CalledProcessError:
            return None

    def run(self, *arguments):
        return subprocess.run([self.path, *map(str, arguments)], cwd=self.folder, check=True, capture_output=True,
                              text=True).stdout

    def run_for(self, who, *arguments):
        """Whether it ran. oneDNN may be missing, or lack a type on this processor; ours may not."""
        try:
            self.run(*arguments)
        except subprocess.CalledProcessError as error:
            print(error.stderr.strip(), file=sys.stderr)
            if who == 'ours':
                raise
            return False
        return True

    def write(self, **arrays):
        for name, array in arrays.items():
            array.tofile(os.path.join(self.folder, name))

    def read(self, name, kind, shape):
        data = np.fromfile(os.path.join(self.folder, name), {'f32': np.float32, 'bf16': np.uint16}[kind]).reshape(shape)
        return (widened(data) if kind == 'bf16' else data).astype(np.float64)

    def gemm(self, who, kinds, x, w, scales=None, block=0):
        """kinds: of x, w and y. Weights that are not floats come as they lie in memory. None where a peer cannot."""
        k, n = x.shape[1], len(w) if scales is not None else w.shape[1]
        self.write(x=bits_of(x, kinds[0]), w=w if scales is not None else bits_of(w, kinds[1]))
        if scales is not None:
            self.write(scales=scales)
        ran = self.run_for(who, 'gemm', who, len(x), n, k, *kinds, block)
        return self.read('y', kinds[2], (len(x), n)) if ran else None

    def attention(self, who, kind, o_kind, cache, q, k, v):
        self.write(q=bits_of(q, kind), k=bits_of(k, kind), v=bits_of(v, kind))
        ran = self.run_for(who, 'attention', who, *q.shape[:2], *k.shape[1:], kind, o_kind, cache)
        return self.read('o', o_kind, q.shape) if ran else None


# ---- Rows of a table ----


def figures(result, exact, unit):
    error = np.abs(result - exact)
    return np.sqrt((error**2).mean()) / unit, error.max() / unit


def shown(pair):
    return ' | '.join('%.2g' % x for x in pair) if pair else ' | '


def row(name, stored, bound, given):
    print('| %s | %s | %s | %s |' % (name, shown(stored), '%.2g' % bound if bound else '', shown(given)))


def head(title):
    print('\n| %s | rms | largest | bound | rms, of what was given | largest |\n|---|---|---|---|---|---|' % title)


# ---- Products ----


def product_rows(program, m, n, k):
    random = np.random.default_rng(1)
    x = random.standard_normal((m, k), np.float32)
    w = random.standard_normal((k, n), np.float32) / np.float32(k**.5)
    x64, w64 = x.astype(np.float64), w.astype(np.float64)
    given = x64 @ w64
    unit = np.sqrt((given**2).mean())

    def add(name, result, kind, x_stored, w_stored, block=0, o_bits=0):
        """o_bits: to how many bits y is rounded."""
        if result is None:
            return
        exact, bound = x_stored @ w_stored, None
        if kind:
            magnitude = np.abs(x_stored) @ np.abs(w_stored)
            share = float(program.run('bound_product', kind, k, block))
            bound = (share * magnitude + 2.**-o_bits * (np.abs(exact) + share * magnitude) * (o_bits > 0)).max() / unit
        same = x_stored is x64 and w_stored is w64
        row(name, figures(result, exact, unit), bound, None if same else figures(result, given, unit))

    x16, w16 = rounded(x, 'bf16'), rounded(w, 'bf16')
    quantised = np.multiply(*map(np.float64, rows_int8(x)))
    head('product %d x %d x %d' % (m, n, k))
    add('F32', program.gemm('ours', ('f32', 'f32', 'f32'), x, w), 'f32', x64, w64)
    add('F32, %s' % program.onednn, program.gemm('onednn', ('f32', 'f32', 'f32'), x, w), None, x64, w64)
    if torch:
        add('F32, ' + TORCH, (torch.from_numpy(x) @ torch.from_numpy(w)).numpy(), None, x64, w64)
    add('weights of F16', program.gemm('ours', ('f32', 'f16', 'f32'), x, w), 'f16', x64, rounded(w, 'f16'))
    add('BF16', program.gemm('ours', ('bf16', 'bf16', 'f32'), x, w), 'bf16', x16, w16)
    add('BF16, y too', program.gemm('ours', ('bf16', 'bf16', 'bf16'), x, w), 'bf16', x16, w16, o_bits=8)
    add('BF16, y too, %s' % program.onednn, program.gemm('onednn', ('bf16', 'bf16', 'bf16'), x, w), None, x16, w16)
    if torch:
        add('BF16, y too, ' + TORCH, torch_linear_bf16(x16, w16), None, x16, w16)
    integers, scales, stored = weights_int8(w.T)
    add('INT8', program.gemm('ours', ('f32', 'int8', 'f32'), x, integers, scales), 'int8', quantised, stored.T)
    if torch:
        row('INT8, ' + TORCH, None, None, figures(torch_linear_int8(x, integers, scales[:, 0]), given, unit))
    for block in (32, 64, 128):
        integers, scales, stored = weights_int8(w.T, block)
        add('INT8, blocks of %d' % block, program.gemm('ours', ('f32', 'int8', 'f32'), x, integers, scales, block), 'int8',
            quantised, stored.T, block)
    for block in (32, 64, 128):
        pairs, scales, stored = weights_int4(w.T, block)
        add('INT4, blocks of %d' % block, program.gemm('ours', ('f32', 'int4', 'f32'), x, pairs, scales, block), 'int4',
            quantised, stored.T, block)
        add('the same, dequantised', program.gemm('ours', ('f32', 'int4_dequantised', 'f32'), x, pairs, scales, block),
            'int4_dequantised', x64, stored.astype(np.float32).T.astype(np.float64), block)


def torch_bf16(x):
    return torch.from_numpy(x.astype(np.float32)).bfloat16()


def torch_linear_bf16(x, w):
    return torch.nn.functional.linear(torch_bf16(x), torch_bf16(w.T.copy())).double().numpy()


def torch_linear_int8(x, integers, scales):
    """Dynamic quantisation: one scale for all rows of x, one for each output."""
    torch.backends.quantized.engine = 'onednn' if 'onednn' in torch.backends.quantized.supported_engines else 'fbgemm'
    weight = torch._make_per_channel_quantized_tensor(torch.from_numpy(integers), torch.from_numpy(scales).double(),
                                                      torch.zeros(len(scales), dtype=torch.long), 0)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    return torch.ops.quantized.linear_dynamic(torch.from_numpy(x), packed, False).double().numpy()


# ---- Attention ----


def exact_attention(q, k, v):
    """The outputs, sum |p v| of each, and the largest sum |q k| * scale of a row."""
    scale = q.shape[-1]**-.5
    logits = q @ k.transpose(0, 2, 1) * scale
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    score = (np.abs(q) @ np.abs(k).transpose(0, 2, 1) * scale).max()
    return p @ v, p @ np.abs(v), score


def torch_attention(q, k, v):
    functional = torch.nn.functional
    attend = getattr(functional, 'scaled_dot_product_attention', None) or functional._scaled_dot_product_attention
    o = attend(q[None], k[None], v[None])
    return (o[0] if isinstance(o, tuple) else o)[0].double().numpy()  # 1.13 returns the weights too


def attention_rows(program, heads, rows, keys, size, factor):
    random = np.random.default_rng(2)
    q = random.standard_normal((heads, rows, size), np.float32) * np.float32(factor)
    k, v = (random.standard_normal((heads, keys, size), np.float32) for _ in range(2))
    given = exact_attention(*(np.float64(t) for t in (q, k, v)))[0]
    unit = np.sqrt((given**2).mean())

    def add(name, result, kind, stored, o_bits=0):
        if result is None:
            return
        exact, magnitude, score = exact_attention(*stored)
        bound = None
        if kind:
            share = float(program.run('bound_attention', kind, size, keys, score))
            bound = (share * magnitude + 2.**-o_bits * (np.abs(exact) + share * magnitude) * (o_bits > 0)).max() / unit
        row(name, figures(result, exact, unit), bound, None if stored is plain else figures(result, given, unit))

    plain = [np.float64(t) for t in (q, k, v)]
    low = [rounded(t, 'bf16') for t in (q, k, v)]
    head('attention of %d heads, %d x %d, size %d' % (heads, rows, keys, size) + (', queries * %d' % factor) * (factor > 1))
    add('F32', program.attention('ours', 'f32', 'f32', 'none', q, k, v), 'f32', plain)
    add('F32, %s' % program.onednn, program.attention('onednn', 'f32', 'f32', 'none', q, k, v), None, plain)
    if torch:
        add('F32, ' + TORCH, torch_attention(*map(torch.from_numpy, (q, k, v))), None, plain)
    add('BF16', program.attention('ours', 'bf16', 'f32', 'none', *low), 'bf16', low)
    add('BF16, o too', program.attention('ours', 'bf16', 'bf16', 'none', *low), 'bf16', low, o_bits=8)
    add('BF16, o too, %s' % program.onednn, program.attention('onednn', 'bf16', 'bf16', 'none', *low), None, low)
    if torch:
        add('BF16, o too, ' + TORCH, torch_attention(*map(torch_bf16, low)), None, low)
    for kind in ('f16', 'int8', 'f8_e4m3', 'f8_e5m2'):
        (held_k, k_scales), (held_v, v_scales) = hold(k, kind), hold(v, kind)
        if k_scales is not None:
            program.write(k_scales=k_scales, v_scales=v_scales)
        add('cache of %s' % kind.upper(), program.attention('ours', 'f32', 'f32', kind, q, k, v), 'f32',
            [plain[0], held_k, held_v])


def main():
    if len(sys.argv) > 2 or any(argument.startswith('-') for argument in sys.argv[1:]):
        sys.exit(__doc__.strip())
    if torch:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        program = Program(sys.argv[1] if len(sys.argv) > 1 else PROGRAM, folder)
        for product in PRODUCTS:
            product_rows(program, *product)
        for attention in ATTENTION:
            attention_rows(program, *attention)


if __name__ == '__main__':
    main()
