"""Tables of docs/reliability.md, made from the records of the campaigns.

python -m tests.reliability.page            # writes the parts between `<!-- recorded: NAME -->` and `<!-- end of record -->`
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability.campaign import RECORDED, Record
from tests.reliability.explained import explain_mutant
from tests.reliability.mutation import TARGETS, list_mutants, summarize

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
LONGEST_ANSWER = 170
FUZZ_COUNTS = ("cases", "distinct", "read", "refused")


def table(columns: list[str], rows: list[list[Any]], numbers: tuple[int, ...] = ()) -> str:
    """Return a table in Markdown; bars in cells are escaped."""
    rule = ["--:" if n in numbers else "---" for n in range(len(columns))]
    lines = [columns, rule, *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(name: str) -> dict[str, Any]:
    """Return the blocks of a record; of a campaign that never ran there are none."""
    return Record(RECORDED / f"{name}.json").blocks


def total(blocks: dict[str, Any], key: str) -> int:
    """Return a count over all blocks."""
    return sum(block.get(key, 0) for block in blocks.values())


def describe_campaigns() -> str:
    """Return what was injected so far, and what went wrong."""
    wild, fuzz, kills = read("wild"), read("fuzz"), read("kills")
    by_command: dict[str, Counter[str]] = defaultdict(Counter)
    for name, block in kills.items():
        by_command[name.split()[0]].update({key: block[key] for key in ("kills", "chains")}, wrong=len(block["wrong"]))
    rich = {name: block for name, block in wild.items() if name.startswith("rich")}
    wild = {name: block for name, block in wild.items() if name not in rich}
    rows = [
        _describe_networks("random networks through every command, all chips", wild, "`python -m tests.reliability.wild`"),
        _describe_networks("those with recurrent weights, several spikes a step, sparse weights and all chips' integers", rich,
                           "`python -m tests.reliability.wild --family rich`"),
        ["damaged files", f"{total(fuzz, 'cases'):,}", sum(len(block["wrong"]) for block in fuzz.values()),
         "`python -m tests.reliability.fuzz`"],
    ]  # fmt: skip
    for command, counts in by_command.items():
        name, _, part = command.partition("_")
        whose = f", of its {part}" if part else ""
        cases = f"{counts['kills']:,} in {counts['chains']:,} chains"
        rows.append(
            [f"SIGKILL at random moments of `{name}`{whose}", cases, counts["wrong"], "`python -m tests.reliability.kills`"]
        )
    return table(["fault", "cases", "wrong", "command"], [row for row in rows if not str(row[1]).startswith("0 ")], (1, 2))


def _describe_networks(fault: str, blocks: dict[str, Any], command: str) -> list[Any]:
    calls = sum(sum(block["results"].values()) + sum(block["refusals"].values()) for block in blocks.values())
    wrong = sum(len(block["wrong"]) for block in blocks.values())
    return [fault, f"{100 * len(blocks):,} networks, {calls:,} calls", wrong, command]


def describe_fuzz() -> str:
    """Return the cases of each reader."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    for name, block in read("fuzz").items():
        reader = name.split()[0]
        counts[reader].update({key: block.get(key, 0) for key in FUZZ_COUNTS}, wrong=len(block["wrong"]))
        slowest[reader] = max(slowest[reader], block.get("slowest_s", 0.0))
    rows = [[reader, *(f"{row[key]:,}" for key in (*FUZZ_COUNTS, "wrong")), f"{slowest[reader]:.2f}"]
            for reader, row in sorted(counts.items())]  # fmt: skip
    return table(["reader", *FUZZ_COUNTS, "wrong", "slowest, s"], rows, (1, 2, 3, 4, 5, 6))


def describe_wild() -> str:
    """Return the calls of each command that gave a result and that were refused."""
    results: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    for block in read("wild").values():
        results.update(block["results"])
        refusals.update(block["refusals"])
    rows = [[f"`{name}`", f"{results[name]:,}", f"{refusals[name]:,}"] for name in sorted({*results, *refusals})]
    if not rows:
        return "No block of 100 networks is recorded yet; the suite runs 100."
    return table(["command", "results", "refused with a sentence"], rows, (1, 2))


def describe_mutants() -> str:
    """Return mutants by module, and how many of the survivors are explained."""
    mutants = {module: list_mutants(module) for module in TARGETS}
    record = Record(RECORDED / "mutation.json")
    summary = summarize(record, mutants)
    explained = Counter(key.split()[0] for key in _list_survivors() if explain_mutant(key))
    rows = [
        [f"`{module}`", count, run, killed, f"{killed / run:.0%}" if run else "–", run - killed, explained[module]]
        for module, (count, run, killed) in summary.items()
    ]
    sums = [sum(row[n] for row in summary.values()) for n in range(3)]
    share = f"{sums[2] / sums[1]:.1%}" if sums[1] else "–"
    rows.append(["all", *sums, share, sums[1] - sums[2], sum(explained.values())])
    columns = ["module", "mutants", "run", "killed", "share", "survived", "of these explained"]
    return table(columns, rows, (1, 2, 3, 4, 5, 6))


def describe_survivors() -> str:
    """Return the survivors with the reason why, and those that a test may yet be written for."""
    rows: dict[str, list[str]] = defaultdict(list)
    for key in _list_survivors():
        rows[explain_mutant(key) or "not explained: a test may be missing"].append(key)
    return table(["why", "mutants"], [[why, "<br>".join(f"`{key}`" for key in keys)] for why, keys in sorted(rows.items())])


def _list_survivors() -> list[str]:
    blocks = Record(RECORDED / "mutation.json").blocks
    keys = [mutant.key for module in TARGETS for mutant in list_mutants(module)]
    return sorted(key for key in keys if blocks.get(key, {}).get("survived"))


def describe_wrong_inputs() -> str:
    """Return each kind of wrong input with its answers; commands with the same answer share a row."""
    rows = []
    for kind, block in read("wrong_inputs").items():
        commands: dict[tuple[int, str], list[str]] = defaultdict(list)
        for command, given in block["answers"].items():
            commands[given["exit"], given["answer"]].append(f"`{command}`")
        for (code, answer), names in commands.items():
            short = answer if len(answer) <= LONGEST_ANSWER else f"{answer[: LONGEST_ANSWER - 2].rstrip()} …"
            rows.append([kind, ", ".join(names), code, short])
    return table(["input", "commands", "exit", "answer"], rows, (2,))


PARTS: dict[str, Callable[[], str]] = {
    "campaigns": describe_campaigns,
    "readers": describe_fuzz,
    "wild": describe_wild,
    "mutants": describe_mutants,
    "survivors": describe_survivors,
    "wrong inputs": describe_wrong_inputs,
}


def main() -> None:
    """Write the made parts of the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- recorded: {name} -->\n).*?(<!-- end of record -->)", re.S)
        text, count = pattern.subn(lambda match, make=make: f"{match[1]}\n{make()}\n\n{match[2]}", text)
        if count != 1:
            raise SystemExit(f"{PAGE}: has {count} parts '{name}'; expected one")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
