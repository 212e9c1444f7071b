"""The source analysers' documents made by plain loops over steps and linears (FORMATS 7).

Independent of the library: one linear at a time, from what the source's files hold of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Run = dict[int, dict[str, dict[str, Any]]]


def names_of(run: Run) -> list[str]:
    return sorted({name for step in run.values() for name in step})


def clip_bound(entry: dict[str, Any], clip: str) -> float:
    """v4: a percentile of 0 counts as missing."""
    if clip == "p999":
        return float(entry["hist_p999"] or entry["tensor_absmax"])
    return float(entry["tensor_absmax"])


def config_v4(run: Run, document: dict[str, Any], *, clip: str, outliers: bool) -> dict[str, Any]:
    per_step: dict[str, Any] = {}
    for step in sorted(run):
        per_step[str(step)] = {}
        for name in names_of(run):
            if name in run[step]:
                entry: dict[str, Any] = {"bits": 8, "scale": clip_bound(run[step][name], clip)}
                if "shift" in run[step][name]:
                    entry["shift"] = run[step][name]["shift"].tolist()
                per_step[str(step)][name] = entry
    config: dict[str, Any] = {
        "format": "per_timestep_quant_config_v4",
        "per_timestep": per_step,
        "sigma_map": document["sigma_map"],
        "summary": {
            "total_timesteps": len(run),
            "total_layers": len(names_of(run)),
            "total_decisions": sum(len(step) for step in run.values()),
            "activation_bits": 8,
            "post_gelu_layers_with_shift": sum(n.endswith(".mlp.fc2") for n in names_of(run)),
            "scale_source": {"absmax": "tensor_absmax", "p999": "hist_p999"}[clip],
        },
        "metadata": document["metadata"],
    }
    if outliers:
        found = outlier_config(run[sorted(run)[len(run) // 2]])
        config["outlier_config"] = found
        config["summary"]["layers_with_outlier_channels"] = len(found)
    return config


def outlier_config(step: dict[str, dict[str, Any]], threshold: float = 2.5) -> dict[str, Any]:
    config = {}
    for name, entry in step.items():
        low, high = entry["avg_min"], entry["avg_max"]
        median = float(np.median(high - low))
        wide = [c for c in range(len(low)) if high[c] - low[c] > threshold * median]
        if median < 1e-6 or not wide:
            continue
        absmax = [max(abs(lo), abs(hi)) for lo, hi in zip(low.tolist(), high.tolist(), strict=True)]
        normal = max(absmax[c] for c in range(len(low)) if c not in wide) / 127
        outlier = max(absmax[c] for c in wide) / 127
        factor = float(max(1, round(outlier / normal)))
        config[name] = {
            "outlier_indices": wide,
            "multiplier_vector": [factor if c in wide else 1.0 for c in range(len(low))],
            "scale_normal": normal,
            "scale_outlier": outlier,
        }
    return config


def temporal_v4(run: Run, document: dict[str, Any]) -> dict[str, Any]:
    scales, shifts = {}, {}
    for name in names_of(run):
        entries = [run[s][name] for s in sorted(run) if name in run[s]]
        values = np.array([e["tensor_absmax"] for e in entries])
        scales[name] = {
            "mean_scale": float(np.mean(values)),
            "min_scale": float(np.min(values)),
            "max_scale": float(np.max(values)),
        }
        sizes = [float(np.abs(e["shift"]).max()) for e in entries if "shift" in e]
        if sizes:
            shifts[name] = {
                "max_shift_magnitude": max(sizes),
                "mean_shift_magnitude": float(np.mean(sizes)),
            }
    return {
        "format": "layer_temporal_analysis_v4",
        "layer_scale_summary": scales,
        "shift_summary": shifts,
        "sigma_map": document["sigma_map"],
    }


def bits_of(name: str, value: float, candidate: bool) -> tuple[int, str]:
    post_gelu = name.endswith(".mlp.fc2")
    low, high = (5.0, 8.0) if post_gelu else (6.0, 10.0)
    bits = 4 if value < low else 6 if value < high else 8
    reason = {4: "< A4 threshold", 6: "A4-A6 range", 8: "> A6 threshold"}[bits]
    reason = ("post-GELU " if post_gelu else "") + reason
    if candidate and (bits == 8 or (bits == 6 and value < 6.0 * 1.2)):
        return bits - 2, reason + " (SmoothQuant downgrade)"
    return bits, reason


def smoothquant(entry: dict[str, Any]) -> list[float] | None:
    """Factors of a candidate, None of any other."""
    absmax = np.maximum(np.abs(entry["avg_min"]), np.abs(entry["avg_max"]))
    tail = float(np.percentile(absmax, 99))
    share = sum(v > tail for v in absmax.tolist()) / len(absmax)
    if tail < 1e-6 or not (share < 0.05 and float(absmax.max()) / tail > 5):
        return None
    root = float(np.mean(absmax)) ** 0.5 + 1e-8
    factors: list[float] = (absmax**0.5 / root).tolist()
    return factors


def shift_effect(entry: dict[str, Any]) -> tuple[float, float]:
    counts, edges = entry["hist_counts"], entry["hist_edges"]
    centers, share = (edges[:-1] + edges[1:]) / 2, counts / counts.sum()
    mean = np.sum(centers * share)
    spread = np.sqrt(np.sum((centers - mean) ** 2 * share) + 1e-8)
    skewness = np.sum((centers - mean) ** 3 * share) / (spread**3 + 1e-8)
    after = abs(mean - float(np.mean(entry["shift"])))
    return float((abs(mean) - after) / (abs(mean) + 1e-8)), float(skewness)


def shift_analysis(run: Run) -> dict[str, Any]:
    found = {}
    for name in names_of(run):
        pairs = [shift_effect(run[s][name]) for s in sorted(run) if "shift" in run[s].get(name, {})]
        if pairs:
            benefit, skewness = (float(np.mean(column)) for column in zip(*pairs, strict=True))
            found[name] = {
                "mean_shift_benefit": benefit,
                "mean_skewness": skewness,
                "effective": benefit > 0.1,
            }
    return found


def decisions(run: Run) -> dict[str, dict[int, dict[str, Any]]]:
    """Linear -> step -> entry of the multi-tier config."""
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for name in names_of(run):
        table[name] = {}
        for step in sorted(run):
            if name not in run[step]:
                continue
            factors = smoothquant(run[step][name]) if step == min(run) else None
            value = run[step][name]["tensor_absmax"]
            bits, reason = bits_of(name, value, factors is not None)
            table[name][step] = {"bits": bits, "scale": value, "reason": reason}
            if factors is not None:
                table[name][step] |= {"smoothquant": True, "smoothquant_scales": factors}
    return table


def layer_stats(run: Run) -> dict[str, Any]:
    stats = {}
    for name, steps in decisions(run).items():
        values = np.array([e["scale"] for e in steps.values()])
        counts = {f"a{b}": sum(e["bits"] == b for e in steps.values()) for b in (4, 6, 8)}
        stats[name] = {
            "mean_absmax": float(np.mean(values)),
            "min_absmax": float(np.min(values)),
            "max_absmax": float(np.max(values)),
            "variability_ratio": float(np.max(values) / (np.min(values) + 1e-6)),
            **{f"{k}_steps": n for k, n in counts.items()},
            **{f"{k}_fraction": n / len(steps) for k, n in counts.items()},
        }
    return stats


def temporal_multitier(run: Run) -> dict[str, Any]:
    stats = layer_stats(run)
    high = [(n, s["variability_ratio"]) for n, s in stats.items() if s["variability_ratio"] > 2]
    switch = [(n, s) for n, s in stats.items() if s["a4_steps"] and s["a8_steps"]]
    return {
        "layer_stats": stats,
        "shift_analysis": shift_analysis(run),
        "high_variability": [
            {"layer": n, "ratio": r} for n, r in sorted(high, key=lambda pair: -pair[1])
        ],
        "switchers": [
            {"layer": n, "a4_fraction": s["a4_fraction"]}
            for n, s in sorted(switch, key=lambda pair: -pair[1]["a6_steps"])
        ],
        "always_a8": [n for n, s in stats.items() if s["a8_fraction"] == 1],
        "always_a4": [n for n, s in stats.items() if s["a4_fraction"] == 1],
    }


def config_v3(run: Run, document: dict[str, Any]) -> dict[str, Any]:
    table, stats = decisions(run), layer_stats(run)
    total = len(run) * len(table)
    counts = {b: sum(s[f"a{b}_steps"] for s in stats.values()) for b in (4, 6, 8)}
    return {
        "format": "per_timestep_quant_config_v3",
        "per_timestep": {
            str(s): {n: steps[s] for n, steps in table.items() if s in steps} for s in sorted(run)
        },
        "sigma_map": document["sigma_map"],
        "shift_analysis": shift_analysis(run),
        "summary": {
            "total_timesteps": len(run),
            "total_layers": len(table),
            "total_decisions": total,
            **{f"total_a{b}": n for b, n in counts.items()},
            **{f"a{b}_percentage": round(100 * n / total, 1) for b, n in counts.items()},
            "smoothquant_layers": sum("smoothquant" in s.get(min(run), {}) for s in table.values()),
            "high_variability_layers": len(temporal_multitier(run)["high_variability"]),
            "switching_layers": len(temporal_multitier(run)["switchers"]),
            **{
                f"always_a{b}": sum(s[f"a{b}_fraction"] == 1 for s in stats.values())
                for b in (8, 6, 4)
            },
        },
        "thresholds": {
            "a4_threshold": 6.0,
            "a6_threshold": 10.0,
            "shifted_a4_threshold": 5.0,
            "shifted_a6_threshold": 8.0,
            "outlier_ratio": 4.0,
            "smoothquant_fraction": 0.05,
            "smoothquant_spike": 5.0,
        },
        "metadata": document["metadata"],
    }
