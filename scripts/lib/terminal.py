"""Draws recorded terminals as one SVG.

In: FOLDER/N.command and FOLDER/N.typescript, of script(1). Out: an SVG with what each terminal showed at the end.
"""

import pathlib
import re
import sys

import pyte
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

COLUMNS = 80


def screen(path):
    """The lines that a terminal shows after this."""
    recorded = path.read_bytes()
    # The first and the last line are script's own.
    recorded = re.sub(rb"\AScript started.*?\n|\n?Script done.*\Z", b"", recorded, flags=re.S)
    terminal = pyte.HistoryScreen(COLUMNS, 200)
    pyte.ByteStream(terminal).feed(recorded)
    lines = [line.rstrip() for line in terminal.display]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def main(picture, folder, number):
    folder = pathlib.Path(folder)
    console = Console(record=True, width=COLUMNS, file=open("/dev/null", "w"), legacy_windows=False)
    for n in range(1, int(number) + 1):
        command = (folder / f"{n}.command").read_text().strip()
        console.print(Text.assemble(("# ", "bold green"), (command, "bold")))
        lines = screen(folder / f"{n}.typescript")
        if not lines:
            sys.exit(f"{command} has printed nothing")
        for line in lines:
            console.print(Text(line.replace(str(folder), "")), soft_wrap=True)
        console.print()
    svg = console.export_svg(title="stillpoint", theme=SVG_EXPORT_THEME, unique_id="terminal")
    # No font from elsewhere: a picture in a documentation asks nobody for anything.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    pathlib.Path(picture).write_text(svg)


main(*sys.argv[1:])
