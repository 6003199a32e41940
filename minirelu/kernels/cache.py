"""Where compiled kernels are kept on disk: in a folder for one state of all their source.

Numba compiles a kernel again when the file that contains it has changed. It does not notice a
change in another file, of a constant like ``BLOCK`` or a helper like ``exp``, although the
old value is part of the machine code. So the digest of every file here names the folder.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numba
from numba.misc.appdirs import AppDirs

from minirelu.source import digest_of

numba_config: Any = numba.config  # whose attributes are made when it loads
KERNELS_FOLDER = Path(__file__).resolve().parent


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder for the kernels as they are now, made if need be; None if it cannot be.

    It lies in ``NUMBA_CACHE_DIR`` where that is set, else beside the source, else, where that
    cannot be written to, in the user's own cache. Folders of earlier states are removed.
    """
    # several copies of the source may share a place
    copy = f"minirelu-{hashlib.sha256(str(KERNELS_FOLDER).encode()).hexdigest()[:8]}-"
    places = [KERNELS_FOLDER / "__pycache__", Path(AppDirs("minirelu", False).user_cache_dir)]
    if numba_config.CACHE_DIR:
        places.insert(0, Path(numba_config.CACHE_DIR))
    for place in places:
        folder = place / (copy + digest_of(sorted(KERNELS_FOLDER.glob("*.py"))))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        for earlier in place.glob(copy + "*"):
            if earlier != folder:
                shutil.rmtree(earlier, ignore_errors=True)
        return folder
    return None
