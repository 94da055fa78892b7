"""Optional packages: what is said where one cannot be imported."""

from __future__ import annotations


def import_failure(error: ImportError, what: str, package: str, *modules: str) -> ImportError:
    """Return the error to raise where `what` needs a package that cannot be imported.

    A package that is there, and fails for want of another or for a broken library, is not the same
    as one that is missing: installing it again would not help.

    Parameters
    ----------
    error : ImportError
        What the import raised.
    what : str
        What needs it.
    package : str
        Its name for pip.
    *modules : str
        Its names for ``import``, where these are others.

    Examples
    --------
    >>> missing = ModuleNotFoundError("No module named 'torch'", name="torch")
    >>> str(import_failure(missing, "a TorchTask", "torch"))
    'a TorchTask needs torch: pip install torch'
    >>> broken = ImportError("libfoo.so.1: no such file", name="pyarrow.lib")
    >>> str(import_failure(broken, "this partition", "flwr-datasets", "flwr_datasets"))
    "this partition needs flwr-datasets, which fails to import here: ImportError: libfoo.so.1: no \
such file (module 'pyarrow.lib')"
    """
    missing = isinstance(error, ModuleNotFoundError) and error.name in {package, *modules}
    if missing:
        return ImportError(f"{what} needs {package}: pip install {package}", name=error.name)
    where = f" (module {error.name!r})" if error.name else ""
    reason = f"{type(error).__name__}: {error}{where}"
    return ImportError(f"{what} needs {package}, which fails to import here: {reason}")
