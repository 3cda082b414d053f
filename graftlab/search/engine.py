"""Optuna's samplers and pruners as a search file names them."""

import warnings
from typing import TYPE_CHECKING

from graftlab.search.design import Search
from graftlab.search.sections import Pruner, Sampler
from graftlab.seeds import mix

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SEEDS = 2**32


def sampler(section: Sampler, seed: int, trials: int) -> "BaseSampler":
    """Return the sampler for the next trial, of which `trials` have been asked for.

    Its draws depend on the seed and on how many trials there are, so that a search that was stopped goes on
    as it would have.
    """
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _sampler(section, seed, trials)


def _sampler(section: Sampler, seed: int, trials: int) -> "BaseSampler":
    from optuna import samplers

    own = mix(seed, "trial", trials) % SEEDS
    if section.name == "tpe":
        return samplers.TPESampler(
            n_startup_trials=section.startup,
            n_ei_candidates=section.candidates,
            multivariate=section.multivariate,
            group=section.group and section.multivariate,
            constant_liar=True,
            seed=own,
        )
    if section.name == "gp":
        return samplers.GPSampler(n_startup_trials=section.startup, seed=own)
    if section.name == "qmc":  # one sequence, of which each trial takes the next point
        return samplers.QMCSampler(
            scramble=True, seed=seed % SEEDS, warn_asynchronous_seeding=False,
            independent_sampler=samplers.RandomSampler(seed=own),  # of fields with conditions
        )  # fmt: skip
    return samplers.RandomSampler(seed=own)


def pruner(section: Pruner) -> "BasePruner":
    """Return the pruner."""
    from optuna import pruners

    plain: BasePruner
    if section.name == "median":
        plain = pruners.MedianPruner(
            n_startup_trials=section.startup,
            n_warmup_steps=0,
            interval_steps=1,
        )
    elif section.name == "hyperband":
        plain = pruners.HyperbandPruner(reduction_factor=section.reduction)
    elif section.name == "wilcoxon":
        plain = pruners.WilcoxonPruner(
            p_threshold=section.p_threshold, n_startup_steps=section.warmup
        )
    else:
        plain = pruners.NopPruner()
    return pruners.PatientPruner(plain, section.patience) if section.patience else plain


def may_prune(search: Search, evaluations: int) -> bool:
    """Say whether a trial may be pruned after so many evaluations, by the section's warm-up and interval."""
    section = search.pruner
    late = evaluations - section.warmup
    return search.prunes and late > 0 and (late - 1) % section.interval == 0
