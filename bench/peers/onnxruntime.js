// ONNX Runtime on one thread, in the protocol of attn-compare:
//
//     node onnxruntime.js DIRECTORY     with onnxruntime-node in DIRECTORY/node_modules
//
//     about
//     time NAME SECONDS 1 SHAPE    SHAPE is the JSON object that attn-compare knows under the name
//
//     attention/onnxruntime        com.microsoft.MultiHeadAttention
//     layer/onnxruntime            four MatMul around it, weights known ahead
//
// A call from JavaScript costs more than a small problem. Such a model is therefore a chain of many copies, each of which
// takes the output of the one before as its query, and its time is divided by their number.
'use strict';

const path = require('path');
const readline = require('readline');
const { createRequire } = require('module');
const requireFrom = createRequire(path.resolve(process.argv[2], 'index.js'));
const ort = requireFrom('onnxruntime-node');

const mostSamples = 2000;
const chained = 64, chainedBelowFlops = 2e7;

// ---- A model, written as protocol buffers

function varint(value) {
    const bytes = [];
    for (let rest = BigInt(value); ; rest >>= 7n) {
        if (rest < 128n) {
            bytes.push(Number(rest));
            return Buffer.from(bytes);
        }
        bytes.push(Number(rest & 127n) | 128);
    }
}

const integer = (field, value) => Buffer.concat([varint(field << 3), varint(value)]);
const bytes = (field, value) => Buffer.concat([varint(field << 3 | 2), varint(value.length), value]);
const text = (field, value) => bytes(field, Buffer.from(value));
const message = (field, ...parts) => bytes(field, Buffer.concat(parts));

const elementTypes = { float32: 1, int32: 6 };

function valueInfo(field, { name, type, dims }) {
    const shape = dims.map((size) => message(1, integer(1, size)));
    return message(field, text(1, name),
        message(2, message(1, integer(1, elementTypes[type]), message(2, ...shape))));
}

function node(operator, domain, inputs, outputs, attributes = {}) {
    return message(1, ...inputs.map((name) => text(1, name)), ...outputs.map((name) => text(2, name)),
        text(4, operator), text(7, domain),
        ...Object.entries(attributes).map(([name, value]) =>
            message(5, text(1, name), integer(3, value), integer(20, 2))));
}

function weight(name, rows, cols) {
    const data = randomNormal(rows * cols, 1 / Math.sqrt(rows));
    return message(5, integer(1, rows), integer(1, cols), integer(2, 1), text(8, name),
        bytes(9, Buffer.from(data.buffer)));
}

function model(nodes, weights, inputs, output) {
    return Buffer.concat([
        integer(1, 8),
        message(7, ...nodes, text(2, 'attention'), ...weights, ...inputs.map((input) => valueInfo(11, input)),
            valueInfo(12, output)),
        message(8, text(1, ''), integer(2, 17)),
        message(8, text(1, 'com.microsoft'), integer(2, 1)),
    ]);
}

// ---- What is timed

function randomNormal(count, deviation) {
    const numbers = new Float32Array(count);
    for (let i = 0; i < count; i++)
        numbers[i] = (Math.random() + Math.random() + Math.random() - 1.5) * 2 * deviation;
    return numbers;
}

function copies(shape) {
    const flops = shape.batch * shape.q_len *
        (4 * shape.valid * shape.heads * shape.head_size + 8 * shape.hidden * shape.hidden);
    return flops < chainedBelowFlops ? chained : 1;
}

// Inputs that are not computed: the first query, and keys and values, each copy's own, as otherwise the optimiser would
// project them once for all.
function describe(shape, projected) {
    const width = shape.heads * shape.head_size;
    const own = projected && shape.q_len === shape.kv_len;
    const inputs = [{ name: 'x0', type: 'float32', dims: [shape.batch, shape.q_len, width] }];
    const nodes = [];
    const input = (name) => {
        inputs.push({ name, type: 'float32', dims: [shape.batch, shape.kv_len, width] });
        return name;
    };
    const project = (name, link, which) => {
        nodes.push(node('MatMul', '', [name, `w_${which}`], [`${which}${link}`]));
        return `${which}${link}`;
    };
    const lens = shape.valid < shape.kv_len ? ['', 'lens'] : [];
    if (lens.length > 0)
        inputs.push({ name: 'lens', type: 'int32', dims: [shape.batch] });

    const count = copies(shape);
    for (let link = 0; link < count; link++) {
        let q = `x${link}`, k, v, o = `x${link + 1}`;
        if (projected) {
            k = v = own ? q : input(`other${link}`);
            [q, k, v, o] = [project(q, link, 'q'), project(k, link, 'k'), project(v, link, 'v'), `o${link}`];
        } else {
            [k, v] = link === 0 ? [input('k'), input('v')] : ['k', 'v'];
        }
        nodes.push(node('MultiHeadAttention', 'com.microsoft', [q, k, v, ...lens], [o],
            { num_heads: shape.heads, unidirectional: shape.causal ? 1 : 0 }));
        if (projected)
            nodes.push(node('MatMul', '', [o, 'w_o'], [`x${link + 1}`]));
    }
    const weights = projected ? ['q', 'k', 'v', 'o'].map((which) => weight(`w_${which}`, width, width)) : [];
    const output = { name: `x${count}`, type: 'float32', dims: [shape.batch, shape.q_len, width] };
    return { inputs, count, bytes: model(nodes, weights, inputs, output) };
}

async function make(name, shape) {
    if (shape.kv_heads !== shape.heads)
        throw new Error('MultiHeadAttention has as many kv heads as heads');
    const described = describe(shape, name.startsWith('layer/'));
    const session = await ort.InferenceSession.create(described.bytes, {
        intraOpNumThreads: 1, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'all',
    });
    const feeds = {};
    for (const { name: input, type, dims } of described.inputs) {
        const elements = dims.reduce((product, size) => product * size, 1);
        const data = type === 'int32' ? new Int32Array(elements).fill(shape.valid) : randomNormal(elements, 1);
        feeds[input] = new ort.Tensor(type, data, dims);
    }
    return { session, feeds, count: described.count };
}

async function microseconds(subject) {
    const start = process.hrtime.bigint();
    await subject.session.run(subject.feeds);
    return Number(process.hrtime.bigint() - start) / 1e3 / subject.count;
}

const current = { name: null };

async function time(name, seconds, shape) {
    if (current.name !== name) {
        if (current.subject)
            await current.subject.session.release();
        current.name = current.subject = null;
        current.subject = await make(name, shape);
        // Of a chain the first call of a copy cannot be told.
        const first = await microseconds(current.subject);
        current.firstUs = current.subject.count === 1 ? first : null;
        current.name = name;
    }
    await microseconds(current.subject);
    const samples = [];
    const end = performance.now() + seconds * 1e3;
    while (samples.length === 0 || (samples.length < mostSamples && performance.now() < end))
        samples.push(await microseconds(current.subject));
    return { first_us: current.firstUs, samples_us: samples };
}

async function answer(line) {
    const [verb, name, seconds, , ...shape] = line.trim().split(/\s+/);
    if (verb === 'about')
        return { onnxruntime: requireFrom('onnxruntime-node/package.json').version };
    return time(name, Number(seconds), JSON.parse(shape.join(' ')));
}

async function main() {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        let result;
        try {
            result = await answer(line);
        } catch (error) {
            result = { error: String(error.message) };
        }
        process.stdout.write(JSON.stringify(result) + '\n');
    }
}

main();
