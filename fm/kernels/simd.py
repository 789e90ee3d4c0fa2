"""A vector type for numba and the few operations the kernels need: ``<n x float>`` in registers.

Plain numba loops over the factors neither vectorise at the full register width nor keep a row's
sum of factors in registers; with this type one line of a kernel is one vector operation, whatever
the processor's width (LLVM splits a vector into as many registers as it takes).

Decided here: the operations and their floating-point flags. Flags allow reassociation and fused
multiply-add, never ``nnan`` or ``ninf``: those would delete the tests for NaN and infinity.

Everything is defined at module level: an intrinsic captured in a closure is pickled by a random
id, and a kernel that captures one would never be found again in numba's cache.

Offsets count elements of flat arrays. They are not checked, and negative ones do not wrap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_SAFE_FAST = ("nsz", "arcp", "contract", "afn", "reassoc")


class Vector(types.Type):
    """The numba type of a value of `width` float32 lanes."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Vector({width} x float32)")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector) -> None:
        super().__init__(manager, fe_type, ir.VectorType(_F32, fe_type.width))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def _width(literal: Any) -> int | None:
    return literal.literal_value if isinstance(literal, types.IntegerLiteral) else None


def _call(
    builder: Any, name: str, returns: Any, takes: list[Any], values: list[Any], **kw: Any
) -> Any:
    function_type = ir.FunctionType(returns, takes)
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, values, **kw)


@intrinsic(prefer_literal=True)
def vload(typingctx: Any, array: Any, offset: Any, width: Any) -> Any:
    """Return the vector ``array[offset : offset + width]``; `width` is a compile-time constant."""
    n = _width(width)
    if n is None:
        return None
    vector = ir.VectorType(_F32, n)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        value.align = 4
        return value

    return Vector(n)(array, types.intp, width), codegen


@intrinsic
def vstore(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a vector to ``array[offset : offset + width]``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_F32, signature.args[2].width)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        store = builder.store(args[2], builder.bitcast(pointer, vector.as_pointer()))
        store.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _splat(builder: Any, scalar: Any, n: int) -> Any:
    undefined = ir.Constant(ir.VectorType(_F32, n), ir.Undefined)
    one = builder.insert_element(undefined, scalar, _I32(0))
    lanes = ir.Constant(ir.VectorType(_I32, n), [0] * n)
    return builder.shuffle_vector(one, undefined, lanes)


@intrinsic(prefer_literal=True)
def vsplat(typingctx: Any, scalar: Any, width: Any) -> Any:
    """Return a vector of `width` lanes that all hold the float32 `scalar`."""
    n = _width(width)
    if n is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], n)

    return Vector(n)(types.float32, width), codegen


@intrinsic
def vscale(typingctx: Any, x: Any, scalar: Any) -> Any:
    """Return ``scalar * x`` for a vector x and a float32 scalar."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], _splat(builder, args[1], args[0].type.count), flags=_SAFE_FAST)

    return x(x, types.float32), codegen


@intrinsic
def vaxpy(typingctx: Any, scalar: Any, x: Any, y: Any) -> Any:
    """Return ``scalar * x + y`` (fused) for vectors x, y and a float32 scalar."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[1].type
        a = _splat(builder, args[0], vector.count)
        name = f"llvm.fma.v{vector.count}f32"
        return _call(builder, name, vector, [vector] * 3, [a, args[1], args[2]])

    return x(types.float32, x, x), codegen


@intrinsic
def vfill_like(typingctx: Any, like: Any, scalar: Any) -> Any:
    """Return a vector as wide as `like` whose lanes all hold the float32 `scalar`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[1], args[0].type.count)

    return like(like, types.float32), codegen


def _elementwise(method: str, text: str, flags: tuple[str, ...] = _SAFE_FAST) -> Any:
    @intrinsic
    def operation(typingctx: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, method)(args[0], args[1], flags=flags)

        return x(x, x), codegen

    operation.__doc__ = text
    return operation


vadd = _elementwise("fadd", "Return x + y, lane by lane.")
# Not contracted: s - x v must be exactly 0 for the only entry of a row, or optimizers that divide
# by the size of the gradient turn the rounding error into full steps.
vsub = _elementwise("fsub", "Return x - y, lane by lane.", ("nsz",))
vmul = _elementwise("fmul", "Return x * y, lane by lane.")
vdiv = _elementwise("fdiv", "Return x / y, lane by lane.")


def _llvm(name: str, arity: int, text: str, flags: tuple[str, ...] = ()) -> Any:
    """Make an operation of the LLVM intrinsic `name` on vectors of any width."""

    def emit(builder: Any, args: Any) -> Any:
        vector = args[0].type
        full = f"llvm.{name}.v{vector.count}f32"
        return _call(builder, full, vector, [vector] * arity, list(args), fastmath=flags)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit(builder, args)

    def one(typingctx: Any, x: Any) -> Any:
        return x(x), codegen

    def two(typingctx: Any, x: Any, y: Any) -> Any:
        return x(x, x), codegen

    def three(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
        return x(x, x, x), codegen

    signatures: dict[int, Any] = {1: one, 2: two, 3: three}
    operation: Any = intrinsic(signatures[arity])
    operation.__doc__ = text
    return operation


vfma: Callable[..., Any] = _llvm("fma", 3, "Return x * y + z, fused.")
vsqrt: Callable[..., Any] = _llvm("sqrt", 1, "Return the square roots.", _SAFE_FAST)
vmin: Callable[..., Any] = _llvm("minnum", 2, "Return the smaller of x and y, lane by lane.")
vmax: Callable[..., Any] = _llvm("maxnum", 2, "Return the larger of x and y, lane by lane.")


@intrinsic
def vsum(typingctx: Any, x: Any) -> Any:
    """Return the sum of the lanes as a float32, in any order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        name = f"llvm.vector.reduce.fadd.v{vector.count}f32"
        flags = ("reassoc", "nsz")
        return _call(builder, name, _F32, [_F32, vector], [_F32(0.0), args[0]], fastmath=flags)

    return types.float32(x), codegen


def _prefetch(builder: Any, pointer: Any) -> None:
    byte_pointer = ir.IntType(8).as_pointer()
    read, keep, data = _I32(0), _I32(3), _I32(1)
    _call(
        builder,
        "llvm.prefetch.p0",
        ir.VoidType(),
        [byte_pointer, _I32, _I32, _I32],
        [builder.bitcast(pointer, byte_pointer), read, keep, data],
    )


@intrinsic
def prefetch(typingctx: Any, array: Any, offset: Any) -> Any:
    """Ask for the cache line of ``array[offset]``; harmless wherever it points."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _prefetch(builder, _pointer(context, builder, signature.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic(prefer_literal=True)
def prefetch_span(typingctx: Any, array: Any, offset: Any, count: Any) -> Any:
    """Ask for the cache lines of ``array[offset : offset + count]``; `count` is a constant."""
    n = _width(count)
    if n is None:
        return None

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = _pointer(context, builder, signature.args[0], args[0], args[1])
        line = 64 // (signature.args[0].dtype.bitwidth // 8)
        for start in range(0, n, line):
            _prefetch(builder, builder.gep(first, [ir.IntType(64)(start)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, count), codegen


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """Return ``array[offset]`` without numba's test for negative indices, which costs up to 2x."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], args[0], args[1]))

    return array.dtype(array, types.intp), codegen


@intrinsic
def index(typingctx: Any, array: Any, offset: Any) -> Any:
    """Return ``array[offset]`` of an integer array as an int64, without any test."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1]))
        return context.cast(builder, value, signature.args[0].dtype, types.int64)

    return types.int64(array, types.intp), codegen


@intrinsic
def clamp(typingctx: Any, x: Any, low: Any, high: Any) -> Any:
    """Return the float32 x moved into [low, high]."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, low, high = args
        capped = _call(builder, "llvm.minnum.f32", _F32, [_F32] * 2, [x, high])
        return _call(builder, "llvm.maxnum.f32", _F32, [_F32] * 2, [capped, low])

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x * y + z (fused) of float32 numbers."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "llvm.fma.f32", _F32, [_F32] * 3, list(args))

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write ``array[offset] = value`` without the test for negative indices."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[0]
        cast = context.cast(builder, args[2], signature.args[2], array_type.dtype)
        builder.store(cast, _pointer(context, builder, array_type, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def vload_like(typingctx: Any, array: Any, offset: Any, like: Any) -> Any:
    """Return the vector at ``array[offset:]`` that is as wide as the vector `like`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[2].type
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        value.align = 4
        return value

    return like(array, types.intp, like), codegen
