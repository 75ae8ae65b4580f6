"""Machine code, loaded from the disk where it has been compiled before."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from zlib import crc32

import llvmlite
from llvmlite import binding, ir

__all__ = ["FINGERPRINT", "folder", "load_code"]

# Of all files of ode: a list of those whose constants are compiled in would fall behind.
FINGERPRINT = crc32(
    b"".join(
        path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py"))
    )
)

SUM = hashlib.sha256().digest_size


def folder() -> Path:
    """Return where compiled models are kept: ``$SKLEARN_INVERSE_CACHE``, or the user's."""
    given = os.environ.get("SKLEARN_INVERSE_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sklearn_inverse"


def load_code(key: object, write_module: Callable[[], tuple[ir.Module, int]]):
    """Return an engine with the code of a module, compiled now or before.

    Parameters
    ----------
    key : object
        What the module is made of, in a form that ``repr`` tells from any other.

    write_module : callable
        Writes the module, and says how hard LLVM is to try (0 to 3).

    Returns
    -------
    engine : ExecutionEngine
        Owner of the machine code.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    cpu, features = host()
    about = [FINGERPRINT, llvmlite.__version__, cpu, features, key]
    path = folder() / f"{hashlib.sha256(repr(about).encode()).hexdigest()}.o"
    code = read(path)
    opt = 2
    if code is None:
        written, opt = write_module()
        module = binding.parse_assembly(str(written))
        module.verify()
    else:
        module = binding.parse_assembly("")  # the file has it all
    target = binding.Target.from_default_triple()
    engine = binding.create_mcjit_compiler(
        module,
        target.create_target_machine(cpu=cpu, features=features, opt=opt, jit=True),
    )
    if code is None:
        engine.set_object_cache(lambda _, code: write(path, code), lambda _: None)
    else:
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


@cache
def host() -> tuple[str, str]:
    """Return this machine's processor and its features."""
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def read(path: Path) -> bytes | None:
    """Return the code in a file, None if there is none or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    code = data[SUM:]
    return code if data[:SUM] == hashlib.sha256(code).digest() else None


def write(path: Path, code: bytes) -> None:
    """Keep code, whole or not at all; where that is impossible it is compiled anew."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, path)
