"""Builds the demo's page: one HTML file that needs no other."""

import html
import platform
import string
from importlib import metadata, resources

import onnxruntime
import torch

import custom_ops
from custom_ops.demo import chart, picture
from custom_ops.demo.lowerings import EQUAL, NEEDS_LIBRARY, REFUSED, Comparison, Row
from custom_ops.demo.training import Training
from custom_ops.demo.water import draw
from custom_ops.onnx import _page, session

_SHOWN = (3, 96, 96)  # N, H, W
_DRAWN_LONGER = 2.0  # arrows, to be seen


def build(training: Training, comparison: Comparison) -> str:
    """Returns the page of a demo."""
    template = resources.files(__package__ or "").joinpath("page.html").read_text("utf-8")
    loss, ordinary = training.loss, training.ordinary
    curves = chart.losses(
        [
            ("ordinary", "plain", ordinary.steps),
            ("deformable", "ours", loss.steps),
        ]
    )
    good = loss.fell and bool(comparison)
    content = string.Template(template).substitute(
        verdict="All agree" if good else "Not as it should be",
        verdict_class="good" if good else "bad",
        scenes=_scenes(training, comparison),
        curves=curves,
        first=f"{loss.first:.4f}",
        last=f"{loss.last:.4f}",
        fell="fell" if loss.fell else "did not fall enough",
        unseen=f"{loss.unseen:.4f}",
        ordinary=f"{ordinary.unseen:.4f}",
        untouched=f"{training.untouched:.4f}",
        rows=_rows(comparison),
        torch_ms=f"{comparison.torch_milliseconds:.2f}",
        threads=_counted(comparison.threads, "thread"),
        rounds=_counted(comparison.rounds, "interleaved run"),
        timed=_size(comparison.sizes[0]),
        sizes=", ".join(_size(size) for size in comparison.sizes),
        longer=f"{_DRAWN_LONGER:g}",
        versions=html.escape(
            f"custom_ops {custom_ops.__version__} · torch {torch.__version__} · onnxruntime "
            f"{onnxruntime.__version__} · onnx {metadata.version('onnx')} · Python "
            f"{platform.python_version()} · {platform.machine()}"
        ),
    )
    return _page.frame("custom_ops demo", content)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _size(shape: tuple[int, ...]) -> str:
    return "&times;".join(str(size) for size in shape)


@torch.no_grad()
def _scenes(training: Training, comparison: Comparison) -> str:
    views = draw(*_SHOWN, torch.Generator().manual_seed(11))
    learnt = training.network.displacement(views.height)
    output, where = training.network(views.seen, views.height), "torch"
    ran = [row for row in comparison.rows if row.verdict == EQUAL]
    if ran:
        path = next(f for f in comparison.files if f.stem == f"{ran[0].lowering}_{ran[0].exporter}")
        feeds = {"picture": views.seen.numpy(), "height": views.height.numpy()}
        runner = session(path, kernels=ran[0].kernels or "none")
        output, where = torch.from_numpy(runner.run(None, feeds)[0]), "ONNX Runtime"
    scenes = []
    for i in range(_SHOWN[0]):
        before = (views.seen[i] - views.truth[i]).square().mean().item()
        after = (output[i] - views.truth[i]).square().mean().item()
        off = (learnt[i] - views.displacement[i]).norm(dim=0).mean().item()
        faded = torch.lerp(views.seen[i], torch.full_like(views.seen[i], 0.1), 0.78)
        both = "".join(
            picture.arrows(_DRAWN_LONGER * arrows[i], css_class)
            for arrows, css_class in ((views.displacement, "true"), (learnt, "learnt"))
        )
        panels = (
            ("Seen through water", f"input · error {before:.4f}", views.seen[i], ""),
            ("Height of the water", "input", picture.water(views.height[i, 0]), ""),
            ("Learnt offsets", f"on average {off:.1f} px off", faded, both),
            (f"Output of {where}", f"error {after:.4f}", output[i], ""),
            ("The picture itself", "what is wanted", views.truth[i], ""),
        )
        scenes.append("".join(_panel(*panel) for panel in panels))
    return "".join(f'<div class="scene">{scene}</div>' for scene in scenes)


def _panel(title: str, note: str, image: torch.Tensor, overlay: str) -> str:
    _, height, width = image.shape
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
        f'<image width="{width}" height="{height}" href="{picture.png(image)}"/>{overlay}</svg>'
        f"<figcaption>{title}<span>{note or '&nbsp;'}</span></figcaption></figure>"
    )


def _rows(comparison: Comparison) -> str:
    longest = max(
        comparison.torch_milliseconds, *(row.milliseconds or 0.0 for row in comparison.rows)
    )
    return "".join(
        _row(row, comparison.torch_milliseconds, longest, _starts_group(comparison.rows, i))
        for i, row in enumerate(comparison.rows)
    )


def _starts_group(rows: tuple[Row, ...], i: int) -> bool:
    return i == 0 or (rows[i].exporter, rows[i].lowering) != (
        rows[i - 1].exporter,
        rows[i - 1].lowering,
    )


def _row(row: Row, torch_ms: float, longest: float, first: bool) -> str:
    names = (row.lowering, row.exporter) if first else ("", "")
    css_class = {EQUAL: "good", NEEDS_LIBRARY: "calm", REFUSED: "calm"}.get(row.verdict, "bad")
    note = f" <small>{html.escape(row.note)}</small>" if row.note else ""
    kernels = row.kernels or ("-" if row.difference is None else "standard ops")
    cells = [f"<td>{name}</td>" for name in (*names, kernels)]
    cells.append(f'<td class="{css_class}">{row.verdict}{note}</td>')
    if row.difference is None or row.milliseconds is None:
        cells.append('<td class="number">-</td><td class="number">-</td><td></td>')
    else:
        cells.append(
            f'<td class="number">{row.difference:.1e}</td>'
            f'<td class="number">{row.milliseconds:.2f}</td>'
            f'<td class="bar"><i style="width:{100 * row.milliseconds / longest:.1f}%"></i>'
            f'<b style="left:{100 * torch_ms / longest:.1f}%"></b></td>'
        )
    return f"<tr{' class=group' if first else ''}>{''.join(cells)}</tr>"
