"""The layers of stage 5 in PyTorch: torch.matmul in f16, torch._scaled_mm in e4m3, torch._int_mm.

Each time is that of a CUDA graph over layers with weights of their own, larger together than the
second-level cache, divided by the number of layers: weights are cold, as in `qcc-gpu-suite layers`.

    python3 torch_layers.py OUT_DIR
"""

import json
import pathlib
import sys

import torch

ROWS = [1, 16, 64, 256, 2048]
CHAINS = [("f16", 4096, 8), ("f16", 8192, 3), ("fp8", 4096, 16), ("fp8", 8192, 4), ("int8", 4096, 16), ("int8", 8192, 4)]


def layer(kind, k):
    """Weights and a function of activations for one layer."""
    if kind == "f16":
        w = torch.randn(k, k, device="cuda", dtype=torch.float16) / k**0.5
        return lambda x: x @ w.t()
    if kind == "fp8":
        w = torch.randn(k, k, device="cuda").to(torch.float8_e4m3fn)
        one = torch.ones((), device="cuda")
        return lambda x: torch._scaled_mm(x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.float16)
    w = torch.randint(-127, 128, (k, k), device="cuda", dtype=torch.int8)
    return lambda x: torch._int_mm(x, w.t())


def activations(kind, m, k):
    x = torch.randn(m, k, device="cuda")
    if kind == "fp8":
        return x.to(torch.float8_e4m3fn)
    if kind == "int8":
        return (x * 20).clamp(-127, 127).to(torch.int8)
    return x.half()


def micros(kind, k, layers, m):
    """Microseconds of one layer, or why PyTorch refuses it."""
    try:
        fs = [layer(kind, k) for _ in range(layers)]
        x = activations(kind, m, k)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for f in fs:
                f(x)
        side.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for f in fs:
                f(x)
        graph.replay()
        samples = []
        for _ in range(9):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(20):
                graph.replay()
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end) * 1e3 / 20 / layers)
        return sorted(samples)[len(samples) // 2]
    except (AttributeError, RuntimeError, TypeError) as e:
        # A PyTorch without the function or the format, or one that refuses these sizes.
        torch.cuda.synchronize()
        return f"refused: {str(e).splitlines()[0]}"


def measured(out):
    """Times of ours and of cuBLASLt by program, kind and k, from what the suite wrote."""
    found = {}
    results = out / "results.jsonl"
    for line in results.read_text().splitlines() if results.exists() else []:
        item = json.loads(line)
        words = item["item"].split()
        if words[0] in ("layers", "vendor") and "us_per_layer" in item["answer"]:
            found[(words[0], words[1], int(words[2]))] = item["answer"]["us_per_layer"]
    return found


def table(chains, others):
    show = lambda t: f"{t:.2f}" if isinstance(t, float) else str(t or "")
    lines = ["# Layers: ours beside cuBLASLt and PyTorch, us per layer, cold", "", "| kind | k | rows | ours | cuBLASLt | PyTorch |", "|---|---|---|---|---|---|"]
    for chain in chains:
        key = (chain["kind"], chain["k"])
        for m, t in chain["us_per_layer"].items():
            ours, vendor = (others.get((program, *key), {}).get(str(m)) for program in ("layers", "vendor"))
            lines.append(f"| {key[0]} | {key[1]} | {m} | {show(ours)} | {show(vendor)} | {show(t)} |")
    return "\n".join(lines) + "\n"


def main():
    out = pathlib.Path(sys.argv[1])
    others = measured(out)
    result = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name(), "chains": []}
    for kind, k, layers in CHAINS:
        times = {m: micros(kind, k, layers, m) for m in ROWS}
        result["chains"].append({"kind": kind, "k": k, "layers": layers, "us_per_layer": times})
        # After each chain, so that a limit on the time costs the later ones only.
        (out / "torch.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / "layers.md").write_text(table(result["chains"], others))
        print(f"[5] torch {kind} {k}: {times}", flush=True)


if __name__ == "__main__":
    main()
