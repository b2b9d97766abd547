"""`darkroom render`: a picture from a prompt, in one command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from darkroom_client.cli.options import AsJson, Directory
from darkroom_client.cli.out import Out, dollars
from darkroom_client.cli.session import session
from darkroom_client.cli.watching import prepare, watch

PRESETS: Final = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")

EXAMPLES: Final = """
[bold]Examples[/bold]

darkroom render "a vintage travel poster for Mars"

darkroom render "a lighthouse on the Moon" -n 4 --size landscape_16_9

darkroom render "a fox" --size 768x1280 --seed 42 --format jpeg --out pictures

darkroom render "a fox" --no-wait --lane bulk      # prints the job's id

open $(darkroom render "a fox")                    # a pipe gets the paths
"""

Size = str | dict[str, int]


def read_size(text: str) -> str:
    """A preset's name or WIDTHxHEIGHT, checked before anything is sent."""
    if text not in PRESETS and not re.fullmatch(r"[1-9]\d{0,4}[xX][1-9]\d{0,4}", text):
        raise typer.BadParameter(f"{text!r} is neither WIDTHxHEIGHT nor one of {', '.join(PRESETS)}")
    return text


def size_of(text: str | None) -> Size | None:
    """The size as the API has it."""
    if text is None or text in PRESETS:
        return text
    width, height = re.split("[xX]", text)
    return {"width": int(width), "height": int(height)}


def complete_size(incomplete: str) -> list[str]:
    """The shell's completion of --size."""
    return [preset for preset in PRESETS if preset.startswith(incomplete)]


def render(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.", show_default=False)],
    *,
    images: Annotated[int, typer.Option("-n", "--images", min=1, max=4, help="Pictures of this prompt.")] = 1,
    size: Annotated[
        str | None,
        typer.Option(
            help="WIDTHxHEIGHT, or a preset: " + ", ".join(PRESETS) + ".",
            callback=lambda value: value and read_size(value),
            autocompletion=complete_size,
            metavar="SIZE",
            show_default="square_hd",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Picture i uses seed + i.", show_default="drawn")] = None,
    output_format: Annotated[
        Literal["png", "jpeg"] | None, typer.Option("--format", help="The pictures' format.", show_default="png")
    ] = None,
    lane: Annotated[
        Literal["interactive", "bulk"] | None,
        typer.Option(help="An interactive job goes before all bulk ones.", show_default="interactive"),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the pictures and save them.")] = True,
    directory: Directory = Path("out"),
    as_json: AsJson = False,
) -> None:
    """Render a prompt, wait for the pictures, and save them."""
    out = Out(as_json=as_json)
    if wait:
        prepare(out, directory)
    with session(out) as client:
        job = client.jobs.create(
            prompt,
            num_images=images if images > 1 else None,
            image_size=size_of(size),
            seed=seed,
            output_format=output_format,
            lane=lane,
        )
        out.done(job.id, aside=f"accepted, about {dollars(job.cost.estimated_usd)}")
        if wait:
            watch(client, out, job, directory)
        elif as_json:
            out.document(job.model_dump(mode="json") | {"files": []})
        else:
            out.hint(f"darkroom jobs watch {job.id}")
            if not out.interactive:
                out.value(job.id)
