"""The cells that a cell needs: a slice of a notebook, by the names that cells bind and read.

A cell that only works on an object which another made, as a training does on its network, is no
part of it: the object is there without that, if untaught.
"""

import ast
import symtable
from collections.abc import Iterable, Iterator


def tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """A scope and all scopes inside it."""
    yield table
    for inner in table.get_children():
        yield from tables(inner)


def bound(code: str) -> set[str]:
    """The global names that a cell binds."""
    symbols = symtable.symtable(code, "cell", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def read(code: str) -> set[str]:
    """The global names that a cell reads before it binds them, or will read in what it defines."""
    names, done = set[str](), set[str]()
    for statement in in_order(ast.parse(code).body):
        text = ast.unparse(ast.fix_missing_locations(statement))
        top = symtable.symtable(text, "cell", "exec")
        names |= {
            symbol.get_name()
            for table in tables(top)
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table is top or symbol.is_global())
        } - done
        done |= bound(text)
    return names


def promised(code: str) -> set[str]:
    """The global names that the functions of a cell read when they are called."""
    _, *inner = tables(symtable.symtable(code, "cell", "exec"))
    symbols = [symbol for table in inner for symbol in table.get_symbols()]
    return {symbol.get_name() for symbol in symbols if symbol.is_global()} - bound(code)


def in_order(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The simple statements of a body as they come to be executed, loops gone through once."""
    for node in body:
        match node:
            case ast.For(target, iterable):
                yield ast.Assign([target], iterable)
            case ast.With(items):
                for item in items:
                    yield ast.Assign([item.optional_vars or ast.Name("_")], item.context_expr)
            case ast.If(test) | ast.While(test):
                yield ast.Expr(test)
            case ast.AugAssign(target, operator, value):
                yield ast.Assign([target], ast.BinOp(target, operator, value))
                continue
            case _:
                yield node
                continue
        yield from in_order(node.body)
        yield from in_order(getattr(node, "orelse", []))


def filled(code: str) -> set[str]:
    """The names of objects that a cell puts something into: models["eps"] = .., net.bias = .."""
    places = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store)
    ]
    return {place.value.id for place in places if isinstance(place.value, ast.Name)}


def needed(cells: list[str], wanted: Iterable[int]) -> list[int]:
    """The indices, in order, of the wanted cells and of all that these need."""
    chosen, size = set(wanted), 0
    while len(chosen) > size:  # what a function reads when it is called may be bound after it
        size = len(chosen)
        names = set().union(*(promised(cells[k]) for k in chosen))
        for k in range(max(chosen), -1, -1):
            if k in chosen or names & (bound(cells[k]) | filled(cells[k])):
                chosen.add(k)
                names = (names - bound(cells[k])) | read(cells[k])
    return sorted(chosen)
