"""Results of earlier analyses on disk, by a hash of all that they depend on: what is killed goes on."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.rundir import files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class OnDisk:
    """A folder of results, one file each; a damaged one counts as none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Any:
        try:
            return json.loads((self._place(key) / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put(self, key: str, value: object) -> None:
        self._place(key).mkdir(parents=True, exist_ok=True)
        files.write_text(self._place(key) / f"{key}.json", json.dumps(value))

    def arrays(self, key: str) -> "dict[str, NDArray[np.float64]] | None":
        import numpy as np

        try:
            with np.load(self._place(key) / f"{key}.npz", allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put_arrays(self, key: str, values: "dict[str, NDArray[np.float64]]") -> None:
        import numpy as np

        self._place(key).mkdir(parents=True, exist_ok=True)
        path = self._place(key) / f"{key}.npz"
        with files.new_file(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **values)

    def _place(self, key: str) -> Path:
        return self.folder / key.removeprefix("spectra-")[:2]
