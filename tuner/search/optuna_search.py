"""TPE and random search through Optuna, in memory."""

from collections.abc import Iterator
from random import Random

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from tuner.records import Config, FrozenMapping, Shape, SpecializationSet, Variant
from tuner.search.search import Cost, Search
from tuner.space import SearchSpace

# Suggestions in a row that were known or broke a constraint. After so many the sampler is no longer asked so often, and
# where it finds nothing, a variant is drawn from all that are left.
_PATIENCE = 100
_LESS_PATIENCE = 5


class OptunaSearch(Search):
    """Wraps one Optuna study.

    Optuna samples with replacement and knows no constraints between parameters: a suggestion that is known or not
    allowed is answered at once as pruned, which tells the sampler to look elsewhere and costs no evaluation.
    """

    def __init__(self, space: SearchSpace, shape: Shape, sampler: BaseSampler, objectives: int, seed: int) -> None:
        self._space = space
        self._shape = shape
        self._known: set[Variant] = set()
        self._running: dict[Variant, Trial] = {}
        self._rest = _in_random_order(space, shape, Random(seed))
        self._patience = _PATIENCE
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)

    def suggest(self) -> Variant | None:
        for _ in range(self._patience):
            trial = self._study.ask()
            variant = self._read(trial)
            if variant not in self._known and self._space.allows(variant.config, self._shape):
                self._known.add(variant)
                self._running[variant] = trial
                return variant
            self._study.tell(trial, state=TrialState.PRUNED)
        self._patience = _LESS_PATIENCE
        left = next((each for each in self._rest if each not in self._known), None)
        if left is not None:
            self._known.add(left)
        return left

    def update(self, variant: Variant, cost: Cost | None) -> None:
        self._known.add(variant)
        trial = self._running.pop(variant, None)
        state = TrialState.PRUNED if cost is None else TrialState.COMPLETE
        if trial is not None:
            self._study.tell(trial, cost, state=state)
        elif self._space.contains(variant, self._shape):
            params, distributions = self._written(variant)
            self._study.add_trial(create_trial(state=state, values=cost, params=params, distributions=distributions))

    def _read(self, trial: Trial) -> Variant:
        space = self._space
        names = [each.name for each in space.implementations]
        name = trial.suggest_categorical("implementation", names)
        chosen = space.implementation(name)
        parameters = {
            key: trial.suggest_categorical(f"{name}.{key}", values) for key, values in chosen.parameters.items()
        }
        options = {key: trial.suggest_categorical(f"{name}.{key}", values) for key, values in chosen.options.items()}
        marked = [each for each in space.candidates if trial.suggest_categorical(f"mark {each}", (False, True))]
        aligned = [
            each
            for each in space.alignment_candidates
            if trial.suggest_categorical(f"mark {each} on alignment", (False, True)) and each not in marked
        ]
        config = Config(name, FrozenMapping(parameters), FrozenMapping(options))
        return Variant(space.kernel, config, SpecializationSet.of(marked, aligned))

    def _written(self, variant: Variant) -> tuple[dict[str, object], dict[str, BaseDistribution]]:
        """The inverse of `_read`: Optuna's own parameters and distributions of a variant."""
        space, config, marks = self._space, variant.config, variant.specialization
        chosen = space.implementation(config.implementation)
        params: dict[str, object] = {"implementation": config.implementation}
        choices: dict[str, tuple[object, ...]] = {"implementation": tuple(each.name for each in space.implementations)}
        for values, picked in ((chosen.parameters, config.parameters), (chosen.options, config.options)):
            for key, allowed in values.items():
                params[f"{chosen.name}.{key}"], choices[f"{chosen.name}.{key}"] = picked[key], allowed
        for each in space.candidates:
            params[f"mark {each}"], choices[f"mark {each}"] = each in marks.do_not_specialize, (False, True)
        for each in space.alignment_candidates:
            name = f"mark {each} on alignment"
            params[name], choices[name] = each in marks.do_not_specialize_on_alignment, (False, True)
        distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values)  # type: ignore[arg-type]  # Optuna's choices are invariant
            for name, values in choices.items()
        }
        return params, distributions


def _in_random_order(space: SearchSpace, shape: Shape, random: Random) -> Iterator[Variant]:
    """Every variant that is allowed, each config once before one comes again with another set."""
    configs, sets = list(space.configs(shape)), list(space.specialization_sets())
    random.shuffle(configs)
    random.shuffle(sets)
    for turn in range(len(sets)):
        for place, config in enumerate(configs):
            yield Variant(space.kernel, config, sets[(place + turn) % len(sets)])
