#!/usr/bin/env python3
"""Trains the example's model and writes dates.safetensors and dates_expected.safetensors beside itself.

usage: train.py [--steps N] [--out FOLDER] [--checkpoint FILE]
Needs PyTorch, 1.13 or later, and a fast BLAS; on Debian: apt-get install python3-torch libopenblas0-pthread, then
/usr/bin/python3 examples/dates/train.py. With --checkpoint it saves its state now and then, and goes on from there.
One thread and fixed seeds: the same machine and the same PyTorch make the same weights. What it trains on is in
lines.py, what came of it in README.md.
"""
import argparse
import json
import math
import pathlib
import random
import struct
import sys
import time

sys.dont_write_bytecode = True  # of lines.py, in the source tree

import torch
from torch import nn
from torch.nn import functional

import lines

HIDDEN, HEADS, INNER, LAYERS = 60, 3, 128, 2
PAD, BOS, EOS, NONE = range(4)
VOCABULARY = ['<pad>', '<bos>', '<eos>', '<none>'] + lines.CHARACTERS
TOKEN = {character: token for token, character in enumerate(VOCABULARY)}
STEPS, BATCH, RATE = 11008, 128, 1.5e-3
WARM_UP, STEADY = 500, .3725  # steps; the share of them before the rate begins to fall
# From which share of the steps on how much of the lines is spoilt dates, and how much of the dates hard ones.
PHASES = [(0, .12, 0), (STEADY, .04, 0), (.745, .04, .25)]
POOL = 64  # batches that are drawn at once, to put lines of a length together
EXPECTED = 16  # lines in dates_expected.safetensors


# ---- The model: examples/dates/model.c is the same on libattn ----

class Attention(nn.Module):
    """Without biases. W_q, W_k and W_v lie in one matrix, and are three in the file."""

    def __init__(self):
        super().__init__()
        self.projections = nn.Parameter(torch.empty(3 * HIDDEN, HIDDEN).uniform_(-HIDDEN ** -.5, HIDDEN ** -.5))
        self.W_o = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.weights = None

    def heads(self, x):
        return x.view(x.shape[0], x.shape[1], -1, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4)

    def forward(self, x, memory, hidden_keys):
        if memory is None:
            query, key, value = self.heads(functional.linear(x, self.projections))
        else:
            query, = self.heads(functional.linear(x, self.projections[:HIDDEN]))
            key, value = self.heads(functional.linear(memory, self.projections[HIDDEN:]))
        scores = (query * (HIDDEN // HEADS) ** -.5) @ key.transpose(-1, -2)
        self.weights = (scores + hidden_keys).softmax(-1)
        return self.W_o((self.weights @ value).transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    def __init__(self, decodes):
        super().__init__()
        self.self_attention, self.norm1 = Attention(), nn.LayerNorm(HIDDEN)
        if decodes:
            self.cross_attention, self.norm2 = Attention(), nn.LayerNorm(HIDDEN)
        self.ffn_in, self.ffn_out, self.norm3 = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x, hidden_keys, memory=None, hidden_memory=None):
        x = self.norm1(x + self.self_attention(x, None, hidden_keys))
        if memory is not None:
            x = self.norm2(x + self.cross_attention(x, memory, hidden_memory))
        return self.norm3(x + self.ffn_out(functional.relu(self.ffn_in(x))))


def positional_encoding():
    table = torch.zeros(lines.LONGEST, HIDDEN)
    angle = torch.arange(float(lines.LONGEST))[:, None] / 10000 ** (torch.arange(0, HIDDEN, 2) / HIDDEN)
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return table


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), HIDDEN)
        self.encoder = nn.ModuleList(Layer(False) for _ in range(LAYERS))
        self.decoder = nn.ModuleList(Layer(True) for _ in range(LAYERS))
        self.output = nn.Linear(HIDDEN, len(VOCABULARY))
        self.positional = positional_encoding()
        nn.init.normal_(self.embedding.weight, std=HIDDEN ** -.5)

    def embed(self, tokens):
        return self.embedding(tokens) * math.sqrt(HIDDEN) + self.positional[:tokens.shape[1]]

    def encode(self, source):
        hidden_keys = (source == PAD)[:, None, None] * -1e9
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, hidden_keys)
        return x, hidden_keys

    def decode(self, target, memory, hidden_memory):
        length = target.shape[1]
        hidden_keys = torch.ones(length, length).triu(1) * -1e9
        x = self.embed(target)
        for layer in self.decoder:
            x = layer(x, hidden_keys, memory, hidden_memory)
        return self.output(x)

    def forward(self, source, target):
        return self.decode(target, *self.encode(source))


# ---- Lines as tokens ----

def pad(rows):
    length = max(map(len, rows))
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])


def encode_lines(texts):
    return pad([[TOKEN[character] for character in text] for text in texts])


def encode_answers(answers):
    """A line that is to be refused has the answer <none>."""
    return pad([[BOS] + ([TOKEN[character] for character in answer] or [NONE]) + [EOS] for answer in answers])


def pool_of_batches(r, held_out, spoilt, hard):
    """Sources and targets of POOL batches, each of lines that are about as long."""
    pool = [lines.training_line(r, held_out, spoilt, hard) for _ in range(POOL * BATCH)]
    pool.sort(key=lambda pair: len(pair[0]))
    order = list(range(0, len(pool), BATCH))
    r.shuffle(order)
    for begin in order:
        texts, answers = zip(*pool[begin:begin + BATCH])
        yield encode_lines(texts), encode_answers(answers)


# ---- Training ----

def begin_of(share, steps):
    return int(share * steps) // POOL * POOL


def mixture(step, steps):
    """Shares of spoilt and of hard dates."""
    return [phase for phase in PHASES if begin_of(phase[0], steps) <= step][-1][1:]


def rate(step, steps):
    """Rises over the first WARM_UP steps, stays, and falls to nothing."""
    return RATE * min(1, step / WARM_UP, (steps - step) / (steps - begin_of(STEADY, steps)))


def train_step(model, optimizer, source, target):
    """Products are in bfloat16, for which processors have instructions: it takes a third of the time."""
    with torch.autocast('cpu', dtype=torch.bfloat16):
        logits = model(source, target[:, :-1])
    loss = functional.cross_entropy(logits.float().flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.)
    optimizer.step()
    return loss.item()


def train(model, steps, checkpoint, held_out):
    r = random.Random(1)
    optimizer = torch.optim.Adam(model.parameters(), betas=(.9, .98))
    began, step = time.time(), 0
    if checkpoint and checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved['model'])
        optimizer.load_state_dict(saved['optimizer'])
        r.setstate(saved['random'])
        step = saved['step']
    while step < steps:
        total = 0.
        for source, target in pool_of_batches(r, held_out, *mixture(step, steps)):
            for group in optimizer.param_groups:
                group['lr'] = rate(step, steps)
            total += train_step(model, optimizer, source, target)
            step += 1
        print(f'step {step} loss {total / POOL:.5f} {time.time() - began:.0f} s, of which computing '
              f'{time.process_time():.0f} s', flush=True)
        if checkpoint and step // POOL % 8 == 0:
            torch.save({'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'random': r.getstate(),
                        'step': step},
                       checkpoint)
        if step // POOL % 16 == 0:
            development(model, held_out)


# ---- Greedy answers ----

@torch.no_grad()
def answer(model, texts):
    """ISO dates, '' where the model refuses."""
    memory, hidden_memory = model.encode(encode_lines(texts))
    target = torch.full((len(texts), 1), BOS)
    for _ in range(12):
        target = torch.cat([target, model.decode(target, memory, hidden_memory)[:, -1:].argmax(-1)], 1)
    answers = []
    for row in target[:, 1:].tolist():
        row = row[:row.index(EOS)] if EOS in row else row
        answers.append('' if NONE in row else ''.join(VOCABULARY[token] for token in row))
    return answers


def is_answered(text):
    """What the program prints: a day of the calendar."""
    if len(text) != 10 or text[4] + text[7] != '--':
        return False
    numbers = text.split('-')
    return len(numbers) == 3 and ''.join(numbers).isdigit() and lines.possible(*map(int, numbers))


def development(model, held_out, count=2000):
    """Lines as those of the training, from another seed."""
    r = random.Random(2)
    pairs = [lines.training_line(r, held_out) for _ in range(count)]
    answers = answer(model, [text for text, _ in pairs])
    wrong = [(text, want, have) for (text, want), have in zip(pairs, answers) if want != have]
    print(f'development: {count - len(wrong)} of {count} right; wrong, for example: {wrong[:8]}', flush=True)


def evaluate(model):
    """The tests' lists."""
    dates, refusals = lines.test_dates(), lines.test_no_dates()
    answers = answer(model, [text for text, _ in dates])
    wrong = [(text, want, have) for (text, want), have in zip(dates, answers) if want != have]
    print(f'dates_test.tsv: {len(dates) - len(wrong)} of {len(dates)} right', *wrong, sep='\n  ')
    answers = answer(model, refusals)
    answered = [(text, have) for text, have in zip(refusals, answers) if is_answered(have)]
    by_model = sum(not have for have in answers)
    print(f'no_dates.txt: {len(answered)} of {len(refusals)} answered, {by_model} refused by the model, '
          'the others are no days of the calendar', *answered, sep='\n  ')


# ---- Files ----

def write_safetensors(path, tensors, metadata):
    header, offset = {}, 0
    if metadata:
        header['__metadata__'] = metadata
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        header[name] = {'dtype': 'F32' if tensor.is_floating_point() else 'I32', 'shape': list(tensor.shape),
                        'data_offsets': [offset, offset + size]}
        offset += size
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for tensor in tensors.values():
            data = tensor.float() if tensor.is_floating_point() else tensor.int()
            file.write(data.contiguous().numpy().tobytes())


def weights_of(model):
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name.endswith('projections'):
            for letter, part in zip('qkv', tensor.split(HIDDEN)):
                tensors[name.replace('projections', f'W_{letter}.weight')] = part
        else:
            tensors[name] = tensor
    return {**tensors, 'positional_encoding': model.positional}  # last: a test cuts the file short


@torch.no_grad()
def expected_of(model):
    """PyTorch's own results on the first lines of dates_test.tsv, the decoder given the right answers."""
    texts, answers = zip(*lines.test_dates()[:EXPECTED])
    source, target = encode_lines(texts), encode_answers(answers)
    memory, hidden_memory = model.encode(source)
    logits = model.decode(target, memory, hidden_memory)
    tensors = {'source': source, 'source_lengths': torch.tensor([len(text) for text in texts]), 'target': target,
               'encoder_output': memory, 'logits': logits}
    for i, layer in enumerate(model.decoder):
        tensors[f'cross_attention_{i}'] = layer.cross_attention.weights
    return tensors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--steps', type=int, default=STEPS, help=f'a multiple of {POOL}')
    parser.add_argument('--checkpoint', type=pathlib.Path)
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Model()
    train(model, arguments.steps, arguments.checkpoint, lines.held_out())
    evaluate(model)
    metadata = {'vocab': json.dumps(VOCABULARY, ensure_ascii=False), 'heads': str(HEADS), 'hidden': str(HIDDEN)}
    write_safetensors(arguments.out / 'dates.safetensors', weights_of(model), metadata)
    write_safetensors(arguments.out / 'dates_expected.safetensors', expected_of(model), None)


if __name__ == '__main__':
    main()
