"""Where in the user's code something happens: the innermost frame outside the frameworks and outside this package."""

import ast
import difflib
import importlib.util
import itertools
import linecache
import sys
import sysconfig
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

OWN = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True)
class Place:
    """A statement: file, first and last line (from 1), and its text."""

    file: str
    line: int
    end_line: int
    code: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def user_place(skip_self: Any = None) -> Place | None:
    """The innermost user frame of the caller's stack; None if there is none.

    `skip_self` is an object whose own methods do not count: whoever constructs a module is asked for, not its
    `__init__`.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame:
        code = frame.f_code
        if is_user_file(code.co_filename) and not _method_of(frame, skip_self):
            return place_of(frame)
        frame = frame.f_back
    return None


def _method_of(frame: FrameType, instance: Any) -> bool:
    names = frame.f_code.co_varnames
    return instance is not None and bool(names) and frame.f_locals.get(names[0]) is instance


def place_of(frame: FrameType) -> Place:
    return place_at(frame.f_code, frame.f_lasti, frame.f_lineno)


def place_at(code: CodeType, instruction: int, line: int) -> Place:
    """The place of an instruction, by its offset in bytes, of code that was running at a line."""
    # co_positions() has one entry an instruction, and an instruction is two bytes.
    position = next(itertools.islice(code.co_positions(), instruction // 2, None), (line, line, 0, 0))
    first, last = position[0] or line, position[1] or line
    text = "\n".join(linecache.getline(code.co_filename, n).rstrip() for n in range(first, last + 1))
    return Place(code.co_filename, first, last, text.strip())


@cache
def is_user_file(file: str) -> bool:
    """Whether a file is neither framework, nor standard library, nor this package.

    Model collections count as the user's: what a port is compared with may well be `torchvision.models`.
    """
    if file.startswith(("<", OWN)):
        return False
    for folder in _framework_folders():
        if file.startswith(folder + "/"):
            return file.startswith(folder + "/vision/models")
    in_packages = "site-packages" in file or "dist-packages" in file
    return in_packages or not file.startswith(sysconfig.get_paths()["stdlib"])


@cache
def _framework_folders() -> tuple[str, ...]:
    folders = []
    for name in ("torch", "paddle"):
        spec = importlib.util.find_spec(name) if name in sys.modules else None
        folders += list(spec.submodule_search_locations or ()) if spec else []
    return tuple(folders)


ALIKE = 0.6  # difflib's word for a close match
Row = tuple[int, int, str]  # first line, last line, text


@cache
def parsed(file: str) -> tuple[ast.Module, tuple[str, ...]]:
    """The syntax tree and the lines of a file, empty where it cannot be read."""
    try:
        text = Path(file).read_text()
        return ast.parse(text), tuple(text.splitlines())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], []), ()


def _row(file: str, first: int, last: int) -> Row:
    return first, last, "\n".join(parsed(file)[1][first - 1 : last]).strip()


def _spanning(file: str, kind: Any, line: int) -> Any:
    """The innermost node of a kind that holds a line, or None."""
    nodes = [node for node in ast.walk(parsed(file)[0]) if isinstance(node, kind)]
    return max((n for n in nodes if n.lineno <= line <= n.end_lineno), key=lambda n: n.lineno, default=None)


def next_statement(file: str, line: int) -> Row | None:
    """The statement that follows a line in a file; None where nothing does."""
    nodes = [node for node in ast.walk(parsed(file)[0]) if isinstance(node, ast.stmt) and node.lineno > line]
    node = min(nodes, key=lambda n: n.lineno, default=None)
    return None if node is None else _row(file, node.lineno, node.end_lineno or node.lineno)


def loop_header(file: str, line: int) -> Row | None:
    """The head of the innermost `for` that runs a line, that says what it loops over; None outside all."""
    node = _spanning(file, ast.For, line)
    return node and _row(file, node.lineno, node.iter.end_lineno)


def return_at(file: str, line: int) -> Row | None:
    """The `return` statement that a line is part of."""
    node = _spanning(file, ast.Return, line)
    return None if node is None else _row(file, node.lineno, node.end_lineno)


def returns_beside(file: str, line: int) -> list[str]:
    """The other `return` statements of the function that holds a line."""
    function = _spanning(file, (ast.FunctionDef, ast.AsyncFunctionDef), line)
    nodes = [node for node in ast.walk(function) if isinstance(node, ast.Return)] if function else []
    places = [(node.lineno, node.end_lineno or node.lineno) for node in nodes]
    return [_row(file, first, last)[2] for first, last in places if not first <= line <= last]


def assigned(file: str, line: int, name: str) -> Row | None:
    """The last statement above a line, in the same function, that assigns to a variable, or the head of its loop."""
    ends: dict[ast.stmt, tuple[ast.AST, int]] = {}  # by statement, what it assigns to, and its last line
    for node in _statements(file, line):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            ends[node] = node, node.end_lineno or node.lineno
        elif isinstance(node, ast.For):
            ends[node] = node.target, node.iter.end_lineno or node.lineno
    above = (
        node
        for node, (to, end) in ends.items()
        if end < line and any(isinstance(n, ast.Name) and n.id == name and _is_written(n) for n in ast.walk(to))
    )
    last = max(above, key=lambda node: node.lineno, default=None)
    return None if last is None else _row(file, last.lineno, ends[last][1])


def default_of(file: str, line: int, name: str, value: Any) -> Row | None:
    """Where an argument of the function that holds a line has this value as its default, written as a literal."""
    function = _spanning(file, (ast.FunctionDef, ast.AsyncFunctionDef), line)
    if function is None:
        return None
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    pairs = [
        *zip(positional[::-1], given.defaults[::-1], strict=False),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        if argument.arg == name and isinstance(default, ast.Constant) and default.value == value:
            return _row(file, default.lineno, default.end_lineno or default.lineno)
    return None


def _is_written(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def statement_at(file: str, line: int) -> Row | None:
    """The innermost statement that holds a line; None outside all."""
    node = _spanning(file, ast.stmt, line)
    return None if node is None else _row(file, node.lineno, node.end_lineno or node.lineno)


def statement_like(file: str, line: int, code: str) -> Row | None:
    """The plain statement that reads most like this one, in the function that holds a line; None if none does."""
    simple = (n for n in _statements(file, line) if not hasattr(n, "body"))
    rows = [_row(file, node.lineno, node.end_lineno or node.lineno) for node in simple]
    scored = [(difflib.SequenceMatcher(None, code, row[2]).ratio(), row) for row in rows]
    best = max(scored, key=lambda entry: entry[0], default=None)
    return best[1] if best and best[0] > ALIKE else None


def in_place_of(file: str, line: int, other_file: str, other_line: int) -> Row | None:
    """In the function that holds a line, the statement as far from its beginning as another function's, at its line.

    Only the statements directly in the functions count. Of a function that ends before, that is the last.
    """
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    mine, other = _spanning(file, functions, line), _spanning(other_file, functions, other_line)
    if mine is None or other is None:
        return None
    index = next((i for i, s in enumerate(other.body) if s.lineno <= other_line <= (s.end_lineno or 0)), 0)
    node = mine.body[min(index, len(mine.body) - 1)]
    return _row(file, node.lineno, node.end_lineno or node.lineno)


def _statements(file: str, line: int) -> list[ast.stmt]:
    """All statements of the function that holds a line."""
    function = _spanning(file, (ast.FunctionDef, ast.AsyncFunctionDef), line)
    return (
        [node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function] if function else []
    )


def condition_of(file: str, line: int) -> Row | None:
    """The condition of the innermost `if` that holds a line in its body; None outside all."""
    node = _spanning(file, ast.If, line)
    return node and _row(file, node.test.lineno, node.test.end_lineno)


def last_return(file: str, line: int) -> Row | None:
    """The last `return` of the function that holds a line, if it comes after; earlier ones are the exceptions."""
    function = _spanning(file, (ast.FunctionDef, ast.AsyncFunctionDef), line)
    nodes = [n for n in ast.walk(function) if isinstance(n, ast.Return) and n.lineno > line] if function else []
    node = max(nodes, key=lambda n: n.lineno, default=None)
    return None if node is None else _row(file, node.lineno, node.end_lineno or node.lineno)
