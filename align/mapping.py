"""A user's mapping file: which names of the port belong to which of the reference. It wins over every other match.

A module's entry holds for the modules inside it, too, as far as they have one name on both sides. An example:

[modules]
"transformers.1.pool" = "pools.0"

[parameters]
"transformers.1.pool.fc.weight" = "pools.0.fc.weight"
"attn.in_proj_weight" = "attn.q.weight + attn.k.weight + attn.v.weight"    # fused here, three there; or the reverse
"""

import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path

from align.errors import UsageError
from align.record.naming import parts

TABLES = ("modules", "parameters")
Mappings = Mapping[str, Mapping[str, str]]  # by table the port's name by the reference's


def read(path: Path | None) -> Mappings:
    """The tables of a file, empty without one. UsageError for what is no TOML, or says anything else, or one twice."""
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: cannot read the mapping: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    for table, names in content.items():
        if table not in TABLES or not isinstance(names, dict):
            raise UsageError(f"{path}: expected the tables [modules] and [parameters], found {table!r}")
        seen: dict[str, str] = {}
        for reference, port in names.items():
            if not isinstance(port, str):
                raise UsageError(f"{path}: [{table}] {reference!r} = {port!r}: quote the names, which hold dots")
            if port in seen:
                raise UsageError(f"{path}: [{table}] both {seen[port]!r} and {reference!r} are {port!r} of the port")
            seen[port] = reference
    return content


def check(mapping: Mappings, table: str, side: str, known: Collection[str]) -> None:
    """UsageError for a name of a table that the side does not have."""
    names = mapping.get(table, {})
    told = names if side == "torch" else names.values()
    for name in (part for several in told for part in parts(several)):
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, 3)) or "none"
            whose = "reference" if side == "torch" else "port"
            raise UsageError(f"--map: [{table}] names {name!r}, which the {whose} does not have; near: {near}")


def port_module(mapping: Mappings, module: str) -> str | None:
    """The port's name of a module of the reference, by its own entry or that of a module around it; None without."""
    modules, inside = mapping.get("modules", {}), ""
    while module:
        if module in modules:
            return modules[module] + inside
        module, dot, last = module.rpartition(".")
        inside = dot + last + inside
    return None


def modules_of(mapping: Mappings) -> dict[str, tuple[str, str]]:
    """(the port's module, how it was found) by the reference's, as far as the pairs of parameters say it.

    Each parameter says it of its owner, and of the modules around that for as long as they have one name on both sides.
    What two parameters say differently is left out.
    """
    found: dict[str, tuple[str, str]] = {}
    unclear = set()
    how = mapping.get("matched_by", {})
    for theirs, own in mapping.get("parameters", {}).items():
        if len(parts(theirs)) > 1 or len(parts(own)) > 1:
            continue
        (one, _, last), (other, _, same) = theirs.rpartition("."), own.rpartition(".")
        while last == same and one and other:
            if found.setdefault(one, (other, how.get(theirs, "override")))[0] != other:
                unclear.add(one)
            (one, _, last), (other, _, same) = one.rpartition("."), other.rpartition(".")
    return {module: told for module, told in found.items() if module not in unclear}
