"""Machine code, loaded from the disk where it has been compiled before."""

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import llvmlite
from llvmlite import binding, ir

__all__ = ["folder", "load_code"]

SUM = hashlib.sha256().digest_size


def folder() -> Path:
    """Return where compiled models are kept: ``$SKLEARN_INVERSE_CACHE``, or the user's."""
    given = os.environ.get("SKLEARN_INVERSE_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sklearn_inverse"


def load_code(module: ir.Module, opt: int):
    """Return an engine with the code of a module, compiled now or before.

    Parameters
    ----------
    module : Module
        The code in LLVM's language.

    opt : {0, 1, 2, 3}
        How hard LLVM tries.

    Returns
    -------
    engine : ExecutionEngine
        Owner of the machine code.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    text, cpu = str(module), binding.get_host_cpu_name()
    features = binding.get_host_cpu_features().flatten()
    about = [llvmlite.__version__, cpu, features, str(opt), text]
    key = hashlib.sha256("\n".join(about).encode()).hexdigest()
    path = folder() / f"{key}.o"
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu=cpu, features=features, opt=opt, jit=True
    )
    kept = read(path)
    if kept is None:
        parsed = binding.parse_assembly(text)
        parsed.verify()
    else:
        parsed = binding.parse_assembly("")  # the object file has it all
        parsed.triple = module.triple
    engine = binding.create_mcjit_compiler(parsed, machine)
    if kept is None:
        engine.set_object_cache(lambda _, code: write(path, code), lambda _: None)
        engine.finalize_object()
    else:
        engine.add_object_file(binding.ObjectFileRef.from_data(kept))
        engine.finalize_object()
    return engine


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
