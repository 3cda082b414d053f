"""What becomes of A and B when an adapter that reads its layer's output begins to read its input.

Behind the layer the change of the weight is B A W; beside it, B' A'. All is computed in float64.
"""

# Shapes: I in features, O out features, R rank, K rank without the zero singular values.

import math

import torch
from torch import Tensor, nn

BLOCK = 64  # rows of W that are turned to float64 at a time: they stay in a processor's cache


def convert(
    method: str, a_RO: Tensor, b_OR: Tensor, w_OI: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return A' (R, I) and B' (O, R) by a switch method other than `exact`, which pulls back A alone.

    `generator` (CPU) draws a fresh A. For `merge_reinit` what was learned has to be kept elsewhere.

    Raises:
        ValueError: `none` keeps A, but W is not square.
    """
    if method == "tip":
        return tip(a_RO, w_OI), torch.zeros_like(b_OR)
    if method == "tip_preserve":
        return tip_preserve(a_RO, b_OR, w_OI)
    if method == "merge_reinit":
        fresh_RI = torch.empty(len(a_RO), w_OI.shape[1])
        nn.init.kaiming_uniform_(fresh_RI, a=math.sqrt(5), generator=generator)
        return fresh_RI, torch.zeros_like(b_OR)
    assert method == "none", method
    if w_OI.shape[0] != w_OI.shape[1]:
        raise ValueError(f"A {tuple(a_RO.shape)} does not fit inputs of width {w_OI.shape[1]}")
    return a_RO, b_OR


def pull_back(a_RO: Tensor, w_OI: Tensor) -> Tensor:
    """Return A W (R, I) in float64, without a float64 copy of all of W."""
    a_RO = a_RO.double()
    product_RI = a_RO.new_zeros(len(a_RO), w_OI.shape[1])
    for start in range(0, len(w_OI), BLOCK):
        rows = slice(start, start + BLOCK)
        product_RI += a_RO[:, rows] @ w_OI[rows].double()
    return product_RI


def tip(a_RO: Tensor, w_OI: Tensor) -> Tensor:
    """Return A' = U S O (R, I), where A = U S V' and O is the polar factor of V' W.

    A' A'ᵀ = A Aᵀ, and the rows of A' span those of A W if V' W has full rank. The task-isomorphic
    projection of JELLY's source, which sets B to zero with it.
    """
    u_RK, s_K, vt_KO = _nonzero_svd(a_RO)
    return (u_RK * s_K) @ _polar(pull_back(vt_KO, w_OI))[0]


def tip_preserve(a_RO: Tensor, b_OR: Tensor, w_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return the A' (R, I) of `tip` and the B' (O, R) with which B' A' = B A W.

    With the polar decomposition V' W = H O, B' = B U S H S^-1 U'.
    """
    u_RK, s_K, vt_KO = _nonzero_svd(a_RO)
    o_KI, h_KK = _polar(pull_back(vt_KO, w_OI))
    us_RK = u_RK * s_K
    return us_RK @ o_KI, b_OR.double() @ us_RK @ h_KK @ (u_RK / s_K).T


def _nonzero_svd(a_RO: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (R, K), S (K,) and V' (K, O) of A = U S V' in float64, without zero singular values.

    Theirs are directions that A does not have, and that pulled back would mix with those that it has.
    """
    u_RR, s_R, vt_RO = torch.linalg.svd(a_RO.double(), full_matrices=False)
    # noise in A is of the precision in which it was kept
    kept = s_R > s_R.max() * max(a_RO.shape) * torch.finfo(a_RO.dtype).eps
    return u_RR[:, kept], s_R[kept], vt_RO[kept]


def _polar(m_KI: Tensor) -> tuple[Tensor, Tensor]:
    """Return O (K, I) with orthonormal rows and the positive H (K, K) of M = H O."""
    u_KK, s_K, vt_KI = torch.linalg.svd(m_KI, full_matrices=False)
    return u_KK @ vt_KI, (u_KK * s_K) @ u_KK.T


def relative_change(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> float:
    """Return |after - before| / |before| in the Frobenius norm, of products of factors (O, R), (R, I).

    Zero where there was nothing before and is nothing after. No matrix (O, I) is formed.
    """
    size = _norm(*before)
    left = torch.cat([after[0].double(), -before[0].double()], dim=1)
    right = torch.cat([after[1].double(), before[1].double()])
    difference = _norm(left, right)
    if size == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / size


def _norm(left_OR: Tensor, right_RI: Tensor) -> float:
    left_RR = torch.linalg.qr(left_OR.double(), mode="r").R
    right_RR = torch.linalg.qr(right_RI.double().T, mode="r").R
    return float(torch.linalg.matrix_norm(left_RR @ right_RR.T))


def effective_rank(a: Tensor) -> float:
    """Return exp of the entropy of the singular values' shares (Roy and Vetterli, 2007); 0 for zero."""
    s = torch.linalg.svdvals(a.double())
    if not s.sum() > 0:
        return 0.0
    share = s / s.sum()
    return float(torch.special.entr(share).sum().exp())
