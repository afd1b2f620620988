"""The table of all known differences between moto and ebs-sim: differences.toml as Markdown.

    python compared.py            prints it
    python compared.py --write    writes it to ebs-sim/docs/compared-with-moto.md
"""

import sys
import tomllib
from pathlib import Path
from textwrap import TextWrapper

HERE = Path(__file__).parent
PROSE = TextWrapper(width=110, break_long_words=False, break_on_hyphens=False)
ITEM = TextWrapper(width=110, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
TABLE = HERE.parent / "docs" / "compared-with-moto.md"

INTRO = """# Compared with moto

[moto](https://github.com/getmoto/moto) is another stand-in for AWS, written by others from the same
documentation. The same {steps} requests are sent to both, and answers are compared: status and error code,
how many items, and which members of botocore's model are there. {alike} of them are answered alike. **This is
every difference**; a new one, or one that is gone, makes `scripts/check-sim` fail. Made by
`ebs-sim/checks/compared.py --write` from `differences.toml`; not written by hand.

"Right" is who does as EC2 is documented to; *unverified* where nothing at hand says so.
"""


def known():
    return tomllib.loads((HERE / "differences.toml").read_text())


def markdown(table, steps):
    differ = sum(len(group["steps"]) for group in table["outcome"])
    out = [INTRO.format(steps=steps, alike=steps - differ), "\n## Outcomes\n"]
    for group in table["outcome"]:
        said = f"**{group['why']}** Right: {group['right']}. Source: {group['source']}."
        out.append(f"\n{PROSE.fill(said)}\n\n")
        out.append("| request | moto | ebs-sim |\n|---|---|---|\n")
        out += [f"| {name} | {moto} | {sim} |\n" for name, (moto, sim) in group["steps"].items()]
    out.append("\n## Members of answers\n")
    for group in table["members"]:
        who = {
            "moto": "Only moto's",
            "ebs-sim": "Only ebs-sim's",
            "moto's own": "Not in the model, in moto's",
        }[group["only"]]
        said = f"**{who}:** {group['why']} Right: {group['right']}."
        out.append(f"\n{PROSE.fill(said)}\n\n")
        for action, paths in group["of"].items():
            members = f"- {action}: " + ", ".join(f"`{path}`" for path in paths)
            out.append(ITEM.fill(members) + "\n")
    return "".join(out)


if __name__ == "__main__":
    from steps import STEPS

    text = markdown(known(), len(STEPS))
    if sys.argv[1:] == ["--write"]:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(text)
    else:
        print(text, end="")
