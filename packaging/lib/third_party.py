"""What the programs contain of others: the texts of their licences, and a CycloneDX list.

In: cargo's own graph of what is compiled in, and the sources of each crate as cargo unpacked them. Out: two files.
Must never: leave out a crate, or write a licence that its crate does not name; a crate without a text and without a
known licence is an error.
"""

import argparse
import collections
import datetime
import json
import os
import re
import subprocess
import sys
import uuid

TEXT = re.compile(r"(?i)^(licen[cs]e|copying|notice|unlicen[cs]e|copyright)")
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def graph(triple):
    """The packages that are compiled in, by id, and what each depends on."""
    command = ["cargo", "metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", triple]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    root = next(i for i, p in packages.items() if p["name"] == "stillpoint" and p["source"] is None)
    needs, todo = {}, [root]
    while todo:
        node = todo.pop()
        if node in needs:
            continue
        # Kind null: not of tests or build scripts.
        needs[node] = [d["pkg"] for d in nodes[node]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
        todo += needs[node]
    return packages, needs, root


def licence(package):
    if not package["license"]:
        sys.exit(f"{package['name']} names no licence")
    return re.sub(r"\s*/\s*", " OR ", package["license"])


def texts(package):
    folder = os.path.dirname(package["manifest_path"])
    names = sorted(n for n in os.listdir(folder) if TEXT.match(n) and os.path.isfile(os.path.join(folder, n)))
    found = []
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            found.append("\n".join(line.rstrip() for line in file.read().strip().splitlines()))
    if found:
        return found
    if "MIT" in re.split(r"[^A-Za-z0-9.-]+", licence(package)):
        who = ", ".join(a.split(" <")[0] for a in package["authors"]) or f"the authors of {package['name']}"
        return [f"MIT License\n\nCopyright (c) {who}\n\n{MIT.strip()}"]
    sys.exit(f"{package['name']} has no text of its licence, {package['license']}")


def checksums():
    """Of Cargo.lock: what cargo checked each crate by."""
    with open("Cargo.lock", encoding="utf-8") as file:
        entries = file.read().split("[[package]]")[1:]
    field = lambda text, key: next(iter(re.findall(rf'^{key} = "(.*)"$', text, re.M)), None)
    return {(field(e, "name"), field(e, "version")): field(e, "checksum") for e in entries}


def write_texts(path, packages):
    by_text = collections.defaultdict(list)
    for package in packages:
        for text in texts(package):
            by_text[text].append(f"{package['name']} {package['version']}")
    std = "MIT License\n\nCopyright (c) The Rust Project Developers\n\n" + MIT.strip()
    by_text[std].append("the standard library of Rust")
    with open(path, "w", encoding="utf-8") as file:
        file.write("stillpoint contains these crates, under these licences. The texts follow.\n\n")
        for package in packages:
            file.write(f"  {package['name']} {package['version']}: {licence(package)}\n")
        file.write("  the standard library of Rust: MIT OR Apache-2.0\n")
        for text, names in sorted(by_text.items(), key=lambda item: (item[1], item[0])):
            file.write(f"\n{'=' * 80}\n{', '.join(names)}\n{'-' * 80}\n{text}\n")


def write_sbom(path, arguments, packages, needs, root, all_packages):
    sums = checksums()
    purl = lambda p: f"pkg:cargo/{p['name']}@{p['version']}"

    def component(package):
        made = {
            "type": "library",
            "bom-ref": purl(package),
            "name": package["name"],
            "version": package["version"],
            "licenses": [{"expression": licence(package)}],
            "purl": purl(package),
        }
        checksum = sums.get((package["name"], package["version"]))
        if checksum:
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return made

    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    when = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    own = f"pkg:generic/stillpoint@{arguments.version.replace('~', '%7E')}"
    program = {
        "type": "application",
        "bom-ref": own,
        "name": "stillpoint",
        "version": arguments.version,
        "licenses": [{"expression": "Apache-2.0"}],
        "purl": own,
        "properties": [
            {"name": "stillpoint:commit", "value": arguments.commit},
            {"name": "stillpoint:target", "value": arguments.triple},
        ],
    }
    name = lambda node: own if node == root else purl(all_packages[node])
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{own}/{arguments.commit}/{arguments.triple}')}",
        "version": 1,
        "metadata": {"timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": program},
        "components": [component(p) for p in packages],
        "dependencies": sorted(
            ({"ref": name(n), "dependsOn": sorted({name(d) for d in deps})} for n, deps in needs.items()),
            key=lambda entry: entry["ref"],
        ),
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser()
    for name in ["triple", "commit", "version", "texts", "sbom"]:
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    packages, needs, root = graph(arguments.triple)
    others = sorted((packages[i] for i in needs if i != root), key=lambda p: (p["name"], p["version"]))
    write_texts(arguments.texts, others)
    write_sbom(arguments.sbom, arguments, others, needs, root, packages)


main()
