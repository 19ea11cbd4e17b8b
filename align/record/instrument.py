"""Python functions that tell the value of every expression they evaluate: their code is replaced, and put back.

The syntax tree of a file is rewritten so that each expression hands its value to a listener, and the code objects of
the functions that exist already are exchanged for the rewritten ones. Classes, closures, defaults and modules stay what
they are, nothing is imported again, and what the functions compute is not touched.
"""

import ast
import builtins
import copy
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

# What is called in rewritten code; the listener has a method for each, named without the mark.
MARK = "_align_{}_"
CALLS = ("enter", "note", "bind", "iterate", "leave", "changed")

Binding = str | tuple[Any, ...] | None  # the names that a value is bound to, nested as in `a, (b, c) = value`

# Functions that look at the frame they are called from are called as they are.
FRAME_READERS = {"super", "locals", "globals", "vars", "dir", "eval", "exec"}
WRAPPED = (
    *(ast.Call, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Attribute, ast.Name),
    *(ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Node:
    """One expression of a source file (or `For`, `AugAssign`, `Store`, `Return`, `Yield`: what a statement does).

    `text` is the called function, operator, name or attribute; `children` are the expressions that it is made of, by
    number; `loops` are the `For` nodes around it, the outermost first.
    """

    file: str
    line: int
    end_line: int
    op: str
    text: str
    function: str
    children: tuple[int, ...] = ()
    binds: Binding = None
    loops: tuple[int, ...] = ()


class Instrumenter(ast.NodeTransformer):
    """Rewrites the functions of one file that begin at the lines `wanted`; new nodes are appended to `nodes`."""

    def __init__(self, file: str, source: str, wanted: Collection[int], nodes: list[Node]) -> None:
        self._file, self._lines, self._wanted, self.nodes = file, source.splitlines(), wanted, nodes
        self._found: list[list[int]] = [[]]  # expressions found so far, by the expression around them
        self._names: list[str] = []
        self._loops: list[tuple[int, ...]] = [()]

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, COMPREHENSIONS):
            return self._comprehension(node)
        if isinstance(node, WRAPPED) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            if isinstance(node, ast.Name) and (node.id in FRAME_READERS or node.id.startswith("__")):
                return node
            text, children = _text(node), self._inside(node)
            return self._call("note", self._add(node, type(node).__name__, text, children), node, [node])
        if isinstance(node, ast.JoinedStr):  # as a whole: what is inside is only written
            return self._call("note", self._add(node, "JoinedStr", ""), node, [node])
        if isinstance(node, (ast.arguments, ast.pattern)):
            return node
        return super().visit(node)

    def _inside(self, node: ast.AST) -> tuple[int, ...]:
        """Visit what a node is made of; the expressions found there."""
        self._found.append([])
        self.generic_visit(node)
        return tuple(self._found.pop())

    def _add(self, node: Any, op: str, text: str, children: Iterable[int] = (), binds: Binding = None) -> int:
        first, last = self._span(node)
        function = ".".join(self._names)
        made = Node(self._file, first, last, op, text, function, tuple(children), binds, self._loops[-1])
        self.nodes.append(made)
        self._found[-1].append(len(self.nodes) - 1)
        return len(self.nodes) - 1

    def _span(self, node: Any) -> tuple[int, int]:
        """First and last line; of an operation whose left side ends on an earlier line, those of what follows it."""
        if isinstance(node, ast.BinOp) and node.left.end_lineno and node.right.end_lineno:
            rest = self._lines[node.left.end_lineno - 1].encode()[node.left.end_col_offset or 0 :].decode()
            behind = rest.lstrip(") ").partition("#")[0].strip()
            return (node.left.end_lineno if behind else node.right.lineno), node.right.end_lineno
        return node.lineno, node.end_lineno

    def _call(self, what: str, number: int, at: Any, arguments: Iterable[Any] = ()) -> ast.Call:
        call = ast.Call(ast.Name(MARK.format(what), ast.Load()), [ast.Constant(number), *arguments], [])
        for part in (call, call.func, call.args[0]):
            ast.copy_location(part, at)
        return call

    def _statement(self, call: ast.Call, at: Any) -> ast.Expr:
        return ast.copy_location(ast.Expr(call), at)

    # Scopes

    def _scope(self, node: Any, name: str) -> Any:
        self._names.append(name)
        self._found.append([])
        self._loops.append(())
        self.generic_visit(node)
        self._loops.pop()
        self._found.pop()
        self._names.pop()
        return node

    def visit_FunctionDef(self, node: Any) -> Any:
        if first_line(node) not in self._wanted:
            return node
        decorators, node.decorator_list = node.decorator_list, []
        returns, node.returns = node.returns, None
        self._scope(node, node.name)
        node.decorator_list, node.returns = decorators, returns
        documented = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        node.body.insert(int(documented), self._statement(self._call("enter", 0, node.body[0]), node.body[0]))
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Module(self, node: ast.Module) -> Any:
        # What a module's and a class's body do has been done; only the functions in them are exchanged.
        node.body = [self._definition(item) for item in node.body]
        return node

    def _definition(self, item: ast.stmt) -> Any:
        if isinstance(item, DEFINITIONS):
            return self.visit(item)
        return Lambdas(self._module_lambda).visit(item)  # in a table, say

    def _module_lambda(self, node: ast.Lambda) -> Any:
        return self.visit(node) if node.lineno in self._wanted else node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        self._names.append(node.name)
        node.body = [self._definition(item) for item in node.body]
        self._names.pop()
        return node

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        """Tells of its beginning and of what it returns, as a function does: `leave((enter(), body)[1])`."""
        body = node.body
        self._names.append("<lambda>")
        self._loops.append(())
        self._found += [[], []]
        made = self.visit(body)
        number = self._add(body, "Return", "return", self._found.pop())
        self._found.pop()
        self._loops.pop()
        self._names.pop()
        both = ast.Subscript(ast.Tuple([self._call("enter", 0, body), made], ast.Load()), ast.Constant(1), ast.Load())
        node.body = self._call("leave", number, body, [both])
        return node

    def _comprehension(self, node: Any) -> Any:
        self._found.append([])
        node.generators[0].iter = self.visit(node.generators[0].iter)
        children = tuple(self._found.pop())
        self._found.append([])
        for index, generator in enumerate(node.generators):
            if index:
                self._found.append([])
                generator.iter = self.visit(generator.iter)
                inner = tuple(self._found.pop())
            else:
                inner = children
            number = self._add(generator.iter, "For", "for", inner, _binding(generator.target))
            generator.iter = self._call("iterate", number, generator.iter, [generator.iter])
            conditions = [self.visit(condition) for condition in generator.ifs]
            generator.ifs = [self._call("bind", number, generator.iter), *conditions]
        for part in ("elt", "key", "value"):
            if hasattr(node, part):
                setattr(node, part, self.visit(getattr(node, part)))
        self._found.pop()
        return self._call("note", self._add(node, type(node).__name__, "", children), node, [node])

    # Statements

    def visit_Expr(self, node: ast.Expr) -> Any:
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_For(self, node: ast.For) -> Any:
        self._found.append([])
        node.iter = self.visit(node.iter)
        children = tuple(self._found.pop())
        number = self._add(node.iter, "For", "for", children, _binding(node.target))
        node.iter = self._call("iterate", number, node.iter, [node.iter])
        self._loops.append((*self._loops[-1], number))
        node.body = [self._statement(self._call("bind", number, node.iter), node.iter), *self._body(node.body)]
        self._loops.pop()
        node.orelse = self._body(node.orelse)
        return node

    def _body(self, body: list[ast.stmt]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for statement in body:
            made = self.visit(statement)
            found += made if isinstance(made, list) else [made]
        return found

    def visit_Return(self, node: ast.Return) -> Any:
        if node.value is None:
            return node
        children = self._inside(node)
        node.value = self._call("leave", self._add(node, "Return", "return", children), node, [node.value])
        return node

    def visit_Yield(self, node: ast.Yield) -> Any:
        if node.value is None:
            return node
        children = self._inside(node)
        node.value = self._call("leave", self._add(node, "Yield", "yield", children), node, [node.value])
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        bases = [_base(target) for target in node.targets]
        stores = [base for base in bases if base is not None and _pure(base)]
        children = self._inside(node)
        if len(node.targets) == 1 and children:
            # The value is visited last: its number is the greatest.
            number = max(children)
            self.nodes[number] = _with_binding(self.nodes[number], _binding(node.targets[0]))
        return [node, *(self._changed(node, "Store", base, children) for base in stores)]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return node
        self._found.append([])
        node.value = self.visit(node.value)
        children = tuple(self._found.pop())
        if children:
            number = max(children)
            self.nodes[number] = _with_binding(self.nodes[number], _binding(node.target))
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        target = node.target
        if not _pure(target):
            self._inside(node)
            return node
        before, again, base = _load(target), _load(target), _base(target)
        self._found.append([])
        loaded = self.visit(before)
        node.value = self.visit(node.value)
        children = tuple(self._found.pop())
        binds = _binding(target)
        number = self._add(node, "AugAssign", type(node.op).__name__, children, binds)
        after = self._call("changed", number, node, [again])
        found = [self._statement(loaded, node), node, self._statement(after, node)]
        return found if base is None else [*found, self._changed(node, "Store", base, (number,))]

    def _changed(self, node: Any, op: str, base: ast.expr, children: Iterable[int]) -> ast.stmt:
        number = self._add(node, op, "", children)
        return self._statement(self._call("changed", number, node, [base]), node)


class Lambdas(ast.NodeTransformer):
    """Puts something in the place of each outermost lambda."""

    def __init__(self, instead: Callable[[ast.Lambda], Any]) -> None:
        self._instead = instead

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        return self._instead(node)


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _with_binding(node: Node, binds: Binding) -> Node:
    return Node(**{**node.__dict__, "binds": binds})


def _binding(target: ast.expr) -> Binding:
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, (ast.Tuple, ast.List)):
        return tuple(_binding(item) for item in target.elts)
    return None


def _pure(target: ast.AST) -> bool:
    """Whether reading the target a second time does nothing: names, attributes and constants only."""
    parts = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.expr_context, ast.UnaryOp, ast.USub, ast.Slice)
    return all(isinstance(part, (*parts, ast.Tuple)) for part in ast.walk(target))


def _base(target: ast.expr) -> ast.expr | None:
    """What an assignment to an element changes; None for a name or an attribute."""
    return _load(target.value) if isinstance(target, ast.Subscript) else None


def _load(target: ast.expr) -> Any:
    """The same expression at the same place, to be read."""
    read = copy.deepcopy(target)
    for part in ast.walk(read):
        if hasattr(part, "ctx"):
            part.ctx = ast.Load()
    return read


def _text(node: Any) -> str:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func)
    for part in ("id", "attr"):
        if hasattr(node, part):
            return getattr(node, part)
    if isinstance(node, ast.Constant):
        return repr(node.value)[:40]
    return type(node.op).__name__ if hasattr(node, "op") else ""


def first_line(function: Any) -> int:
    """Where a function begins, for Python: with its first decorator."""
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def rewritten(file: str, wanted: Collection[int], nodes: list[Node]) -> CodeType:
    """The compiled module of a file, its functions that begin at these lines rewritten; `nodes` grows."""
    source = Path(file).read_text()
    tree = Instrumenter(file, source, wanted, nodes).visit(ast.parse(source))
    return compile(ast.fix_missing_locations(tree), file, "exec", dont_inherit=True)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


@contextmanager
def instrumented(wanted: Mapping[str, Collection[int]], listener: Any, nodes: list[Node]) -> Iterator[None]:
    """While this block runs, the functions that begin at the wanted lines of files tell `listener` their values."""
    replacements: dict[tuple[str, str, int], CodeType | None] = {}
    for file, lines in wanted.items():
        for code in _codes(rewritten(file, lines, nodes)):
            key = file, code.co_qualname, code.co_firstlineno
            replacements[key] = None if key in replacements else code  # two lambdas on one line cannot be told apart
    functions = [thing for thing in gc.get_objects() if type(thing) is FunctionType]
    originals: list[tuple[FunctionType, CodeType]] = []
    names: dict[str, Callable[..., Any]] = {MARK.format(name): getattr(listener, name) for name in CALLS}
    try:
        for name, method in names.items():
            setattr(builtins, name, method)
        for function in functions:
            old = function.__code__
            new = replacements.get((old.co_filename, old.co_qualname, old.co_firstlineno))
            if new is not None and new.co_freevars == old.co_freevars:
                originals.append((function, old))
                function.__code__ = new
        yield
    finally:
        for function, old in originals:
            function.__code__ = old
        for name in names:
            delattr(builtins, name)
