"""`analyse --keep-vectors`: singular values and vectors on disk, those of a full decomposition."""

import numpy as np
import torch
from safetensors.numpy import load_file

from graftlab.analyses import spectra
from graftlab.contracts import About, Asked, Change
from graftlab.explanation.kept import OnDisk
from graftlab.explanation.vectors import Vectors
from graftlab.testing.analyses import Planted, asked


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_all_values_and_the_top_vectors_of_change_weight_and_weight_before_are_kept(tmp_path):
    left, right, before = drawn(9, 2, seed=0), drawn(2, 7, seed=1), drawn(9, 7, seed=2)
    subject = Planted("m", (Change("a.weight", left, right),), {"a.weight": before}, step=4)
    how = Asked(
        top=3, quantities=asked().quantities, kept=OnDisk(tmp_path / "kept"),
        vectors=Vectors(tmp_path / "out").put,
    )  # fmt: skip
    for _ in range(2):  # a line that is known from before has its vectors too
        list(spectra.rows([subject], how))
        (file,) = (tmp_path / "out").rglob("*.safetensors")
        assert file == tmp_path / "out" / "m" / "4" / "a.weight.safetensors"
        found = load_file(file)
        file.unlink()
    whole = {"change": left @ right, "weight": before + left @ right, "before": before}
    assert set(found) == {f"{w}_{k}" for w in whole for k in ("values", "left", "right")}
    for name, matrix in whole.items():
        u, values, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
        np.testing.assert_allclose(found[f"{name}_values"], values, rtol=1e-7, atol=1e-12)
        kept = found[f"{name}_left"].shape[1]
        assert kept == (2 if name == "change" else 3)
        for side, theirs in (("left", u), ("right", vt.T)):
            cosines = (found[f"{name}_{side}"] * theirs[:, :kept]).sum(axis=0)
            np.testing.assert_allclose(np.abs(cosines), 1, rtol=1e-9)


def test_a_name_of_a_model_is_one_part_of_a_path_whatever_it_is(tmp_path):
    put = Vectors(tmp_path / "out").put
    put(About("../../up"), "/etc/x", {"change_values": np.ones(2)})
    (file,) = tmp_path.rglob("*.safetensors")
    assert (tmp_path / "out") in file.parents
